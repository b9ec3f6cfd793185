# Leads the session of one pod: leader.sh <pod directory> <image tree or ""> <program> [argument ...]
# Signals go to the whole group; we stay until the program has ended and record how.
trap told=yes HUP INT QUIT TERM
pod=$1 tree=$2 told=
shift 2
exec 3>&2 2>/dev/null # our own words on a signal ("Terminated") are none of the program's output
fill() { [ -z "$tree" ] || { command -p cp -a --reflink=auto "$tree/." . && command -p chmod -R u+w .; }; }
cd "$pod/root" && (fill) 2>&3 3>&-
code=$?
if [ -n "$told" ]; then code=143
elif [ "$code" = 0 ]; then (exec "$@") 2>&3 3>&-; code=$?
else code=126; fi # could not be started, as in the shell
echo "$code" 1<>"$pod/status" # into the space that it has; a second signal would kill `mv`
exit "$code"
