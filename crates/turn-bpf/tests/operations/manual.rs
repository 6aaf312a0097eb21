//! What packages bring besides the binary.

use std::fs;
use std::process::Command;

use turn_testkit::scratch::ScratchFolder;

const BINARY: &str = env!("CARGO_BIN_EXE_turn-bpf");

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_command_has_its_page() {
    let folder = ScratchFolder::new("man").unwrap();
    output(Command::new(BINARY).arg("man").arg(folder.path()));
    let whole = fs::read_to_string(folder.path().join("turn-bpf.8")).unwrap();
    for part in [
        "NAME",
        "SYNOPSIS",
        "FILES",
        "\"EXIT STATUS\"",
        "SIGNALS",
        "/etc/default/turn\\-bpf",
        "turn\\-bpf\\-run(8)",
    ] {
        assert!(whole.contains(part), "no {part} in\n{whole}");
    }
    let help = output(Command::new(BINARY).arg("--help"));
    let commands =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<_> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.contains(&"run") && commands.contains(&"doctor"), "{help}");
    for command in commands.into_iter().filter(|command| *command != "help") {
        let page = fs::read_to_string(folder.path().join(format!("turn-bpf-{command}.8"))).expect(command);
        assert!(
            page.contains(&format!("\\fBturn\\-bpf {command}\\fR")) && page.contains("EXIT STATUS"),
            "{page}"
        );
    }
    let run = fs::read_to_string(folder.path().join("turn-bpf-run.8")).unwrap();
    for option in output(Command::new(BINARY).args(["run", "--help"])).split_whitespace() {
        let Some(option) =
            option.strip_prefix("--").filter(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        else {
            continue;
        };
        assert!(run.contains(&format!("\\-\\-{}", option.replace('-', "\\-"))), "no --{option} in\n{run}");
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let completions = output(Command::new(BINARY).args(["completions", "bash"]));
    let function = completions.split("complete -F ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    let complete = |words: &str, at: usize| {
        let script = format!(
            "{completions}\nCOMP_WORDS=({words}); COMP_CWORD={at}; {function} turn-bpf \"${{COMP_WORDS[{at}]}}\" \
             \"${{COMP_WORDS[{at}-1]}}\"; echo \"${{COMPREPLY[@]}}\""
        );
        output(Command::new("bash").args(["--norc", "-c", &script])).trim().to_owned()
    };
    assert_eq!(complete("turn-bpf sta", 1), "status");
    assert_eq!(complete("turn-bpf run --max-f", 2), "--max-flows");
    assert_eq!(complete("turn-bpf run --mode n", 3), "native");
    for shell in ["zsh", "fish"] {
        let text = output(Command::new(BINARY).args(["completions", shell]));
        assert!(text.contains("max-flows"), "{text}");
    }
}
