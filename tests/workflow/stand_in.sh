# In place of every job of the workflow: bash reads this file before each shell command (BASH_ENV). Plans depend on files,
# times and records alone, so a stand-in writes the outputs of its job and nothing else; BROKEN names a command that fails.

python() { # -m effective_lr COMMAND [--OPTION VALUE]...
    local command=$3 before="" word scale="" published="" study="" made=()
    [ "$command" != "${BROKEN:-}" ] || return 1
    for word in "$@"; do
        case $before in
        --scale) scale=$word ;;
        --metrics) [ "$word" != published ] || published=published- ;;
        --study) study=$word ;;
        --output | --tensors | --record | --executed | --notebook | --page) made+=("$word") ;;
        esac
        before=$word
    done
    local build=paper/build/$published$scale results=results/$published$scale/$study
    case $command in
    chapter)
        mkdir -p "$build/$study/tables"
        made+=("$results"/{claims.json,runs.csv,verdicts.html,provenance.html} "$build/$study/numbers.tex")
        ;;
    paper) made+=("$build/main.pdf") ;;
    esac
    for word in "${made[@]}"; do echo "$command" >"$word"; done
}
