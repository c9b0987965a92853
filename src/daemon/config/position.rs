//! Positions in a configuration file.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// An invalid value: its key as documented (`limits.max-flows`), and a message that names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidValue {
    pub(super) key: String,
    pub(super) message: String,
}

impl InvalidValue {
    /// The message says what is wrong and what is allowed; the key is prepended.
    pub(super) fn new(key: impl Into<String>, message: impl std::fmt::Display) -> Self {
        let key = key.into();
        Self { message: format!("{key}: {message}"), key }
    }
}

/// Counted from 1.
pub(super) fn line_at(text: &str, byte: usize) -> Option<usize> {
    text.get(..byte).map(|before| before.matches('\n').count() + 1)
}

/// The line of a key's value; for a list, the line of the first item that `is_it`, if there is one.
pub(super) fn line_of(text: &str, key: &str, is_it: impl Fn(&str) -> bool) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let mut value: Option<&Spanned<DeValue<'_>>> = None;
    let mut inside = Some(table.get_ref());
    for part in key.split('.') {
        let (_, found) = inside?.iter().find(|(name, _)| name.get_ref() == part)?;
        inside = if let DeValue::Table(table) = found.get_ref() { Some(table) } else { None };
        value = Some(found);
    }
    let value = value?;
    let item = match value.get_ref() {
        DeValue::Array(items) => {
            items.iter().find(|item| matches!(item.get_ref(), DeValue::String(text) if is_it(text)))
        }
        _ => None,
    };
    line_at(text, item.unwrap_or(value).span().start)
}

/// The key, as documented, whose name or value the byte is part of.
pub(super) fn key_at(text: &str, byte: usize) -> Option<String> {
    within(DeTable::parse(text).ok()?.get_ref(), byte)
}

/// The span of a table is that of its heading.
fn within(table: &DeTable<'_>, byte: usize) -> Option<String> {
    table.iter().find_map(|(name, value)| {
        let here = (name.span().start..value.span().end).contains(&byte);
        match value.get_ref() {
            DeValue::Table(inner) => Some(format!("{}.{}", name.get_ref(), within(inner, byte)?)),
            _ => here.then(|| name.get_ref().to_string()),
        }
    })
}
