# Leads the session of one pod: leader.sh <pod directory> <image tree or ""> <program> [argument ...]
# Signals go to the whole group; we stay until the program has ended and record how.
trap : HUP INT QUIT TERM
pod=$1 tree=$2
shift 2
exec 3>&2 2>/dev/null # our own words on a signal ("Terminated") are none of the program's output
fill() { [ -z "$tree" ] || { command -p cp -a --reflink=auto "$tree/." . && command -p chmod -R u+w .; }; }
cd "$pod/root" && fill 2>&3 3>&- && "$@" 2>&3 3>&-
echo "$?" >"$pod/status.new" && command -p mv "$pod/status.new" "$pod/status"
