//! `isqrt-cov completions`.

use anyhow::Result;
use clap::{Args, Command, ValueHint};
use clap_complete::Shell;
use serde_json::json;

use super::answer::Answer;

/// Print the completion script of a shell
///
/// The script completes commands, options and file names.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mkdir -p ~/.local/share/bash-completion/completions
  isqrt-cov completions bash > ~/.local/share/bash-completion/completions/isqrt-cov
  isqrt-cov completions zsh > \"${fpath[1]}/_isqrt-cov\"
  isqrt-cov completions fish > ~/.config/fish/completions/isqrt-cov.fish")]
pub struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// The script for the program's whole `command` line.
pub(crate) fn run(arguments: &Arguments, command: &mut Command) -> Result<Answer> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "isqrt-cov", &mut script);
    let mut text = String::from_utf8(script)?;
    if arguments.shell == Shell::Bash {
        // The generator takes the hyphen in the program's name for a space in half of the places.
        text = offering_files(&text.replace("isqrt__subcmd__cov", "isqrt__cov"), command);
    }
    Ok(Answer { fields: json!({ "script": text }), text, refusal: None })
}

/// Bash's script with files where a command takes some: the generator offers options there, and nothing else. Where the script
/// offers nothing, the shell completes files.
fn offering_files(script: &str, command: &Command) -> String {
    let mut script = script.to_owned();
    let takes_files = |command: &&Command| {
        command.get_positionals().any(|argument| argument.get_value_hint() == ValueHint::FilePath)
    };
    for command in command.get_subcommands().filter(takes_files) {
        let head = format!("        isqrt__cov__subcmd__{})\n            opts=", command.get_name());
        if let Some((before, block)) = script.split_once(&head) {
            let block = block.replacen(" || ${COMP_CWORD} -eq 2 ]]", " ]]", 1);
            let options = "\n            COMPREPLY=( $(compgen -W \"${opts}\" -- \"${cur}\") )\n";
            let block = block.replacen(options, "\n            COMPREPLY=()\n", 1);
            script = [before, &head, &block].concat();
        }
    }
    script
}
