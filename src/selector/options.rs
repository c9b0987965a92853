//! Options for the connections of one selector, beside its policy: words that follow it, separated by commas, as in
//! `10.0.0.0/8:443,no-resume`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Policy, Rule, Selector, SelectorError};

/// Declares [`RuleOptions`] once: fields, documentation, words.
macro_rules! options {
    ($($(#[$doc:meta])* $name:ident: $word:literal,)*) => {
        /// Options of a rule. All are off unless given.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct RuleOptions { $($(#[$doc])* pub $name: bool,)* }

        impl RuleOptions {
            /// The words of the options that are on.
            #[must_use]
            pub fn words(self) -> Vec<&'static str> {
                [$((self.$name, $word),)*].into_iter().filter_map(|(on, word)| on.then_some(word)).collect()
            }

            fn switch_on(&mut self, word: &str) -> Result<(), SelectorError> {
                match word {
                    $($word => self.$name = true,)*
                    _ => return Err(SelectorError::Option(word.to_owned())),
                }
                Ok(())
            }

            /// All of them on.
            const ALL: Self = Self { $($name: true,)* };
        }
    };
}

options! {
    /// Neither propose nor accept session resumption (TC-22).
    no_resume: "no-resume",
    /// Do not cache the session for later connections to resume (TC-22).
    no_cache: "no-cache",
    /// Tell the peer that the application knows of the encryption: a = 1 (ENO-8).
    aware: "aware",
    /// The same, and encrypt only if the peer's application knows of it, too (ENO-8).
    mandatory_aware: "mandatory-aware",
    /// Take role B when this host opens, for exactly one side of a simultaneous open (ENO-7).
    role_b: "role-b",
}

impl RuleOptions {
    /// Whether all are off.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// All words, for messages.
pub(super) fn words() -> String {
    RuleOptions::ALL.words().join(", ")
}

impl Serialize for RuleOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.words())
    }
}

impl<'de> Deserialize<'de> for RuleOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut options = Self::default();
        for word in Vec::<String>::deserialize(deserializer)? {
            options.switch_on(&word).map_err(serde::de::Error::custom)?;
        }
        Ok(options)
    }
}

/// A selector with options, as users write it and as it is serialised: `SELECTOR[,OPTION...]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selected {
    /// Which connections.
    pub selector: Selector,
    /// Options beside the policy.
    pub options: RuleOptions,
}

impl Selected {
    /// As a rule.
    #[must_use]
    pub fn rule(self, policy: Policy) -> Rule {
        Rule { selector: self.selector, policy, options: self.options }
    }
}

impl fmt::Display for Selected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.selector.fmt(f)?;
        self.options.words().into_iter().try_for_each(|word| write!(f, ",{word}"))
    }
}

impl FromStr for Selected {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut parts = text.split(',').map(str::trim);
        let selector = parts.next().unwrap_or_default().parse()?;
        let mut options = RuleOptions::default();
        parts.try_for_each(|word| options.switch_on(word))?;
        Ok(Self { selector, options })
    }
}

impl Serialize for Selected {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selected {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_stand_behind_the_selector_in_any_order() {
        let text = "[2001:db8::/32]:443,role-b, no-resume";
        let selected: Selected = text.parse().unwrap();
        assert_eq!(selected.options, RuleOptions { no_resume: true, role_b: true, ..RuleOptions::default() });
        assert_eq!(selected.to_string(), "[2001:db8::/32]:443,no-resume,role-b");
        assert_eq!(selected.to_string().parse::<Selected>().unwrap(), selected);
        assert!("10.0.0.0/8".parse::<Selected>().unwrap().options.is_none());
    }

    #[test]
    fn every_word_switches_on_what_it_says() {
        for word in RuleOptions::ALL.words() {
            let selected: Selected = format!(":80,{word}").parse().unwrap();
            assert_eq!(selected.options.words(), [word]);
            let json = serde_json::to_string(&selected.options).unwrap();
            assert_eq!(json, format!("[\"{word}\"]"));
            assert_eq!(serde_json::from_str::<RuleOptions>(&json).unwrap(), selected.options);
        }
    }

    #[test]
    fn what_is_no_option_is_refused_with_those_there_are() {
        for text in ["10.0.0.1,", "10.0.0.1,resume", "10.0.0.1,10.0.0.2", ",aware"] {
            assert!(text.parse::<Selected>().is_err(), "{text}");
        }
        let error = "10.0.0.1,norsume".parse::<Selected>().unwrap_err().to_string();
        assert!(error.contains("`norsume`") && error.contains("no-resume, no-cache, aware"), "{error}");
    }
}
