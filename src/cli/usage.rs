//! Usage errors in one line.

use clap::error::ErrorKind;

/// The parser's multi-line message in one line: the reason, the possible values, and where to read more, without the
/// usage summary.
pub(super) fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let see = "see --help";
    if matches!(error.kind(), ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand) {
        let commands = text.lines().skip_while(|line| *line != "Commands:").skip(1);
        let commands = commands.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("   "));
        let names: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
        return format!("a command is missing: {}; {see}", names.join(", "));
    }
    let mut line = String::new();
    let parts = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        if !line.is_empty() {
            line.push_str(if line.ends_with(':') { " " } else { "; " });
        }
        line.push_str(part.strip_prefix("error: ").unwrap_or(part));
    }
    format!("{line}; {see}")
}
