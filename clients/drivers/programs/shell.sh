@@ shell

no=no
if [ "$(ask "SELECT le_is_leader(1, 'nobody')")" = t ]; then no=yes; fi
next=0
work=$(mktemp -d)

answer() {
	local command=$1 sql=$2 error status=0
	case $command in
		me) echo "$me"; return ;;
		token) if leads; then echo "$token"; else echo none; fi; return ;;
		false) echo "$no"; return ;;
	esac
	if [ "$command" = open ]; then
		# psql reads its input line by line: the rest comes later
		{ printf '%s\n' "$sql;" '\echo open'; read -r _; } | guarded "${token:-1}" 2> "$work/error" || status=$?
	else
		printf '%s;\n' "$sql" | guarded "${token:-1}" > /dev/null 2> "$work/error" || status=$?
	fi
	if [ "$status" = 0 ]; then echo done; else echo "error $(sqlstate < "$work/error")"; cat "$work/error" >&2; fi
}

while true; do
	if [ "$(clock)" -ge "$next" ]; then
		turn
		next=$(($(clock) + pause))
	fi
	if read -r -t 0; then       # a whole line is there; a read that waits may be cut off in the middle
		read -r command sql || exit 1
		[ "$command" != stop ] || break
		answer "$command" "$sql"
	else
		sleep 0.05
	fi
done
step_down
rm -r "$work"
