//! Texts for people, in English and Brazilian Portuguese.
//!
//! docg stores its own texts as keys with parameters, and renders a text when somebody reads it, in the
//! reader's language. The messages are in `locales/*.ftl` (Fluent); a test fails if a key lacks a language.

use std::{borrow::Cow, str::FromStr, sync::LazyLock};

use fluent_bundle::{FluentArgs, FluentResource, FluentValue, concurrent::FluentBundle};
use serde::{Deserialize, Serialize};
use unic_langid::LanguageIdentifier;

use crate::{limits, observe::Redaction, storable};

const EN: &str = include_str!("../../locales/en.ftl");
const PT_BR: &str = include_str!("../../locales/pt-BR.ftl");

/// A language that docg speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Locale {
    /// English.
    #[default]
    #[serde(rename = "en")]
    En,
    /// Brazilian Portuguese.
    #[serde(rename = "pt-BR")]
    PtBr,
}

impl Locale {
    /// All languages that docg speaks.
    pub const ALL: [Self; 2] = [Self::En, Self::PtBr];

    /// The BCP 47 tag.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::PtBr => "pt-BR",
        }
    }

    /// The best match for an `Accept-Language` header (RFC 9110, section 12.5.4); English if nothing matches.
    #[must_use]
    pub fn negotiate(accept_language: &str) -> Self {
        let mut best = (0u16, Self::En);
        for range in accept_language.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let tag = parts.next().unwrap_or_default();
            let quality = parts
                .find_map(|part| part.strip_prefix("q="))
                .map_or(1.0, |q| q.parse().unwrap_or(0.0));
            // Counted in thousandths, because RFC 9110 allows three decimals.
            let quality = (f32::clamp(quality, 0.0, 1.0) * 1000.0) as u16;
            let language = tag
                .split('-')
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase();
            let locale = match language.as_str() {
                "pt" => Self::PtBr,
                "en" | "*" => Self::En,
                _ => continue,
            };
            if quality > best.0 {
                best = (quality, locale);
            }
        }
        best.1
    }
}

/// The error for a tag that is neither `en` nor `pt-BR`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("unknown language {0:?}: en or pt-BR")]
pub struct UnknownLocale(String);

impl FromStr for Locale {
    type Err = UnknownLocale;
    fn from_str(tag: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|l| l.tag().eq_ignore_ascii_case(tag))
            .ok_or_else(|| UnknownLocale(tag.to_owned()))
    }
}

/// A text for people: a key of the catalogues with its parameters, or an application's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// A message, rendered in the reader's language.
    Key {
        /// The message's name in `locales/*.ftl`.
        key: Cow<'static, str>,
        /// The values of the message's placeholders.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        params: Vec<(Cow<'static, str>, Text)>,
    },
    /// The words of an application or provider, shown unchanged in every language.
    Literal(String),
}

impl Text {
    /// A message of the catalogues without parameters.
    #[must_use]
    pub const fn key(key: &'static str) -> Self {
        Self::Key {
            key: Cow::Borrowed(key),
            params: Vec::new(),
        }
    }

    /// Adds a parameter. Has no effect on a literal text.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        if let Self::Key { params, .. } = &mut self {
            // Reserve room for one parameter only: most texts have one, and stay in memory for long.
            params.reserve_exact(1);
            params.push((Cow::Borrowed(name), Self::Literal(value.to_string())));
        }
        self
    }

    /// Adds a parameter that is itself a text, rendered in the reader's language. Has no effect on a literal
    /// text.
    #[must_use]
    pub fn with_text(mut self, name: &'static str, text: Self) -> Self {
        if let Self::Key { params, .. } = &mut self {
            params.reserve_exact(1);
            params.push((Cow::Borrowed(name), text));
        }
        self
    }

    /// Removes control characters and secrets from literal texts, also from those in parameters, and cuts
    /// each to [`limits::HUMAN`].
    pub(crate) fn printable(self, redaction: &Redaction) -> Self {
        match self {
            Self::Literal(text) => {
                Self::Literal(storable::technical(text, limits::HUMAN, redaction))
            }
            Self::Key { key, params } => Self::Key {
                key: storable::printable_cow(key, limits::CODE),
                params: params
                    .into_iter()
                    .map(|(name, text)| {
                        (
                            storable::printable_cow(name, limits::CODE),
                            text.printable(redaction),
                        )
                    })
                    .collect(),
            },
        }
    }

    /// Renders the text in the reader's language.
    #[must_use]
    pub fn render(&self, locale: Locale) -> String {
        match self {
            Self::Literal(text) => text.clone(),
            Self::Key { key, params } => {
                message(locale, key, params).unwrap_or_else(|| key.to_string())
            }
        }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Literal(text)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::Literal(text.to_owned())
    }
}

/// Renders a message of the catalogues; `None` if there is no such key.
#[must_use]
pub fn message(locale: Locale, key: &str, params: &[(Cow<'static, str>, Text)]) -> Option<String> {
    let catalogue = catalogue(locale);
    let pattern = catalogue.get_message(key)?.value()?;
    let mut args = FluentArgs::with_capacity(params.len());
    for (name, text) in params {
        let value = text.render(locale);
        // Only a count becomes a number, for plural forms. A label "007" or a code "1e3" must be shown
        // unchanged.
        let count = value
            .parse::<u32>()
            .ok()
            .filter(|count| count.to_string() == value);
        args.set(
            name.as_ref(),
            count.map_or_else(|| FluentValue::from(value), FluentValue::from),
        );
    }
    let mut errors = Vec::new();
    Some(
        catalogue
            .format_pattern(pattern, Some(&args), &mut errors)
            .into_owned(),
    )
}

type Catalogue = FluentBundle<FluentResource>;

fn catalogue(locale: Locale) -> &'static Catalogue {
    static CATALOGUES: LazyLock<[Catalogue; 2]> =
        LazyLock::new(|| [load(Locale::En, EN), load(Locale::PtBr, PT_BR)]);
    &CATALOGUES[locale as usize]
}

fn load(locale: Locale, source: &str) -> Catalogue {
    let language: LanguageIdentifier = locale.tag().parse().unwrap_or_default();
    let mut bundle = FluentBundle::new_concurrent(vec![language]);
    // Isolation marks are for right-to-left text; in logs and JSON they are invisible noise.
    bundle.set_use_isolating(false);
    // An entry with a syntax error is left out; the catalogue test fails on such an entry.
    let resource =
        FluentResource::try_new(source.to_owned()).unwrap_or_else(|(resource, _)| resource);
    bundle.add_resource_overriding(resource);
    bundle
}

#[cfg(test)]
mod tests;
