//! Output for people and programs.

use std::io::{ErrorKind, Write as _};

use serde::Serialize;

use super::common::CommandError;

/// Shown wherever encryption is shown that nobody authenticated.
pub(super) const NOT_AUTHENTICATED: &str = "\
Encrypted does not mean authenticated: an attacker who can modify packets on the path can impersonate the peer. If both
ends show the same session ID, nobody did; compare them over a channel that you trust.";

/// Writes `text` to stdout. A closed reader (`| head`) is not an error.
pub(super) fn print(text: &str) -> Result<(), CommandError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(CommandError::new(format!("cannot write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes `value` to stdout as JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), CommandError> {
    let mut text = serde_json::to_string_pretty(value).map_err(CommandError::new)?;
    text.push('\n');
    print(&text)
}

/// Aligned columns; those in `right` are right-aligned. The first row is the heading.
pub(super) fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            if column > 0 {
                line.push_str("  ");
            }
            let cell = if right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            line.push_str(&cell);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A number of bytes, in decimal units, with at least three digits.
pub(super) fn bytes(count: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 10_000 {
        return format!("{count} B");
    }
    let mut rest = count;
    for unit in units {
        if rest < 1_000_000 || unit == "EB" {
            return format!("{}.{} {unit}", rest / 1000, rest % 1000 / 100);
        }
        rest /= 1000;
    }
    format!("{count} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_blanks_at_the_end() {
        let rows = [vec!["A".into(), "B".into(), "N".into()], vec!["long".into(), String::new(), "1000".into()]];
        assert_eq!(table(&rows, &[2]), "A     B     N\nlong     1000\n");
        assert_eq!(table(&[vec!["x".into(), String::new()]], &[]), "x\n");
    }

    #[test]
    fn bytes_keep_their_size() {
        for (count, text) in [
            (0, "0 B"),
            (9_999, "9999 B"),
            (10_000, "10.0 kB"),
            (999_999, "999.9 kB"),
            (1_000_000, "1.0 MB"),
            (12_345_678_901, "12.3 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
