# Completion of leaderctl for bash.  What there is to complete is asked of the
# program's own help, so that it is never that of another version.  Works
# without the functions of bash-completion; with them, the command behind "--"
# is completed as if it stood alone.
# shellcheck shell=bash disable=SC2207    # no word here has spaces or wildcards

# What a command takes, a word each: "--wait=" has an argument, "--once" none.
_leaderctl_options() {
	"$1" ${2:+"$2"} --help 2> /dev/null |
		sed -n 's/^  *\(-[^ ], \)\{0,1\}--\([a-z-]*=\{0,1\}\).*/--\2/p'
}

_leaderctl_commands() {
	"$1" --help 2> /dev/null | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p'
}

# Set $at to the place in COMP_WORDS where the command to run begins, if that is
# not behind the cursor: behind "--", or the first word that is no option.
_leaderctl_find_command() {
	local i options=$1 word
	at=
	for ((i = 2; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
			--)
				at=$((i + 1))
				return
				;;
			--*=*) ;;
			--*)
				# its argument is a word of its own, and so may be the "="
				case " $options " in
					*" $word= "*)
						[ "${COMP_WORDS[i + 1]:-}" != = ] || i=$((i + 1))
						i=$((i + 1))
						;;
				esac
				;;
			-[lhpUd]) i=$((i + 1)) ;;
			-*) ;;
			*)
				at=$i
				return
				;;
		esac
	done
}

_leaderctl_files() {
	compopt -o filenames 2> /dev/null
	local IFS=$'\n'
	COMPREPLY=($(compgen -f -- "$1"))
}

# Complete the command to run, which begins at that place in COMP_WORDS.
_leaderctl_command() {
	local word=${COMP_WORDS[COMP_CWORD]}
	if declare -F _command_offset > /dev/null; then
		_command_offset "$1"
	elif [ "$1" -eq "$COMP_CWORD" ]; then
		COMPREPLY=($(compgen -c -- "$word"))
	else
		_leaderctl_files "$word"
	fi
}

_leaderctl() {
	local program=${COMP_WORDS[0]} command='' word=${COMP_WORDS[COMP_CWORD]}
	local before='' options at
	COMPREPLY=()

	if [ "$COMP_CWORD" -gt 1 ]; then
		case ${COMP_WORDS[1]} in
			-*) return 0 ;;
			*) command=${COMP_WORDS[1]} ;;
		esac
	fi
	options=$(_leaderctl_options "$program" "$command")
	options=${options//$'\n'/ }

	# the command to run
	_leaderctl_find_command "$options"
	case $command:$at in
		run:?* | watch:?*)
			_leaderctl_command "$at"
			return 0
			;;
	esac

	# an option's argument: "--format json", or "--format=json", which is one
	# word or three
	case $word in
		--*=*)
			before=${word%%=*}
			word=${word#*=}
			;;
		=)
			before=${COMP_WORDS[COMP_CWORD - 1]}
			word=
			;;
		*)
			before=${COMP_WORDS[COMP_CWORD - 1]}
			[ "$before" != = ] || before=${COMP_WORDS[COMP_CWORD - 2]}
			;;
	esac
	case $before in
		--format)
			COMPREPLY=($(compgen -W 'table json' -- "$word"))
			;;
		--status-file)
			_leaderctl_files "$word"
			;;
		-[lhpUd]) ;;
		--?*)
			case " $options " in
				*" $before= "*) before=argument ;;
			esac
			;;
	esac
	case $before in
		--format | --status-file | -[lhpUd] | argument)
			# a word that readline has not divided is replaced as a whole
			[ "${COMP_WORDS[COMP_CWORD]#--*=}" = "${COMP_WORDS[COMP_CWORD]}" ] ||
				COMPREPLY=("${COMPREPLY[@]/#/${COMP_WORDS[COMP_CWORD]%%=*}=}")
			return 0
			;;
	esac

	# no option, no argument of one: the command to run begins here
	case $command:$word in
		run: | watch: | run:-* | watch:-*) ;;
		run:* | watch:*)
			_leaderctl_command "$COMP_CWORD"
			return 0
			;;
	esac

	if [ "$COMP_CWORD" -eq 1 ]; then
		COMPREPLY=($(compgen -W "$(_leaderctl_commands "$program") $options" -- "$word"))
	else
		COMPREPLY=($(compgen -W "$options" -- "$word"))
	fi
	# an argument follows its "=" at once
	case ${#COMPREPLY[@]}:${COMPREPLY[0]:-} in
		1:*=) compopt -o nospace 2> /dev/null ;;
	esac
	return 0
}

complete -F _leaderctl leaderctl
