# Leads the session of one pod: leader.sh <pod directory> <image tree or ""> <program> [argument ...]
# We stand in <pod directory>/root. Signals go to the whole group; we stay until the program has ended, record
# how, and end what it left behind: orphans below us are ours, also those that have left the session.
# Errors of the program go where its output goes, our own words ("Terminated") nowhere.
# Until the program has ended there is no variable here, for it might be one of the app's.
trap 'set -- "$1" "$2"' HUP INT QUIT TERM # told to stop: there is nothing to run any more
if { [ -z "$2" ] || (command -p cp -a --reflink=auto "$2/." . && command -p chmod -R u+w .) 2>&1; } && [ $# -gt 2 ]; then
	(shift 2 && exec "$@") 2>&1
	code=$?
else
	code=126 # it could not be started, as in the shell
	[ $# -gt 2 ] || code=143
fi
echo "$code" 1<>"$1/status" # into the space that it has; with a temporary name a second signal would kill `mv`
left=
while read -r left <"/proc/$$/task/$$/children"; [ -n "$left" ]; do
	kill -9 $left
	command -p sleep 0.01 # while we wait for it, the shell reaps whatever has ended
done
exit "$code"
