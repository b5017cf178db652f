//! E-mail addresses: one parser, and one form for comparison.
//!
//! Preflight, handlers and mail all read addresses through [`Address`], so they cannot disagree about an
//! address. [`Address`] accepts the addresses to which mail servers deliver today:
//!
//! - `name@domain`, alone or after a display name: `Silva, Ana <ana@example.com>`;
//! - before the `@`: ASCII letters, digits, and ``!#$%&'*+-/=?^_`{|}~`` with single dots between them. Quoted
//!   parts, comments and other scripts are refused: many mail servers do not accept them;
//! - after the `@`: a domain name in any script. Mail carries it in ASCII (`xn--…`, UTS 46). IP addresses are
//!   refused.
//!
//! An address keeps the spelling in which it was given. To compare two addresses, compare their
//! [keys](Address::key).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize, de};

use crate::{i18n::Text, limits::PEOPLE};

/// The longest display name or signer's name, in characters.
pub const MAX_NAME: usize = 200;
/// The length of the longest address that SMTP carries (RFC 5321), in bytes of the ASCII form.
const MAX_ADDRESS: usize = 254;
/// The longest part before the `@` (RFC 5321).
const MAX_LOCAL_PART: usize = 64;

/// An e-mail address, with an optional display name.
///
/// ```
/// use docg_core::address::Address;
///
/// let address: Address = "Silva, Ana <Ana@Exämple.com>".parse()?;
/// assert_eq!(address.name(), Some("Silva, Ana"));
/// assert_eq!(address.email(), "Ana@Exämple.com");
/// assert_eq!(address.ascii(), "Ana@xn--exmple-cua.com");
/// assert_eq!(address.key(), "ana@xn--exmple-cua.com".parse::<Address>()?.key());
/// # Ok::<(), docg_core::address::AddressError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    name: Option<String>,
    email: String,
    /// The length of the part before the `@`.
    local: usize,
    ascii: String,
}

/// Why a text is not an address that mail can be sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The text is not of the form `name@domain`.
    #[error("expected name@domain, or a display name and <name@domain>")]
    Form,
    /// The part before the `@` has characters other than ASCII letters, digits and a few signs.
    #[error(
        "before the @ only ASCII letters, digits, !#$%&'*+-/=?^_`{{|}}~ and single dots are allowed, at most 64"
    )]
    LocalPart,
    /// The part after the `@` is not a domain name.
    #[error("after the @ a domain name is needed, such as example.com")]
    Domain,
    /// The address is longer than mail can carry.
    #[error("an address has at most 254 bytes")]
    TooLong,
    /// The display name cannot be used.
    #[error("the display name: {0}")]
    Name(#[from] NameError),
}

impl AddressError {
    /// The text for people, without its parameters `field` and `label`.
    pub(crate) fn human(self) -> Text {
        match self {
            Self::LocalPart => Text::key("issue-email-local-part"),
            Self::Name(_) => Text::key("issue-email-display-name"),
            Self::Form | Self::Domain | Self::TooLong => Text::key("issue-invalid-email-format"),
        }
    }
}

impl Address {
    /// The address as given, without the display name.
    #[must_use]
    pub fn email(&self) -> &str {
        &self.email
    }

    /// The display name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The address as mail servers accept it, with the domain in ASCII.
    #[must_use]
    pub fn ascii(&self) -> &str {
        &self.ascii
    }

    /// The two parts of [`ascii`](Self::ascii), before and after the `@`.
    #[must_use]
    pub fn parts(&self) -> (&str, &str) {
        (&self.ascii[..self.local], &self.ascii[self.local + 1..])
    }

    /// The key for comparing addresses.
    #[must_use]
    pub fn key(&self) -> AddressKey {
        AddressKey(self.ascii.to_ascii_lowercase())
    }

    /// Sets or removes the display name.
    ///
    /// # Errors
    ///
    /// [`NameError`] if the name cannot be used.
    pub fn named(mut self, name: Option<&str>) -> Result<Self, NameError> {
        self.name = name.map(person_name).transpose()?;
        Ok(self)
    }

    /// Parses an address without a display name.
    fn plain(email: &str) -> Result<Self, AddressError> {
        let (local, domain) = email.rsplit_once('@').ok_or(AddressError::Form)?;
        if local.is_empty() || domain.is_empty() || local.contains('@') {
            return Err(AddressError::Form);
        }
        let is_atom = |part: &str| {
            let is_sign = |b: u8| b"!#$%&'*+-/=?^_`{|}~".contains(&b);
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || is_sign(b))
        };
        if local.len() > MAX_LOCAL_PART || !local.split('.').all(is_atom) {
            return Err(AddressError::LocalPart);
        }
        let domain = ascii_domain(domain).ok_or(AddressError::Domain)?;
        let ascii = format!("{local}@{domain}");
        if ascii.len() > MAX_ADDRESS {
            return Err(AddressError::TooLong);
        }
        Ok(Self {
            name: None,
            email: email.to_owned(),
            local: local.len(),
            ascii,
        })
    }
}

/// Converts a domain name to ASCII and lower case; `None` if it is not a domain name.
fn ascii_domain(domain: &str) -> Option<String> {
    // Refuse invisible characters, which UTS 46 would silently drop: domain names that look alike must not
    // differ by them.
    if domain.len() > 4 * MAX_ADDRESS || domain.contains(is_invisible) {
        return None;
    }
    let ascii = idna::domain_to_ascii_strict(domain).ok()?;
    let last = ascii.rsplit('.').next()?;
    // A domain name never ends in a number, so such a text is an IPv4 address.
    (!last.bytes().all(|b| b.is_ascii_digit())).then_some(ascii)
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.len() > 4 * (MAX_ADDRESS + MAX_NAME) {
            return Err(AddressError::TooLong);
        }
        // A line break would begin another header in the mail.
        if text.contains(char::is_control) {
            return Err(AddressError::Form);
        }
        let Some((name, email)) = text.strip_suffix('>').and_then(|it| it.rsplit_once('<')) else {
            return Self::plain(text);
        };
        let address = Self::plain(email)?;
        match name.trim() {
            "" => Ok(address),
            name => Ok(address.named(Some(&unquoted(name).ok_or(AddressError::Form)?))?),
        }
    }
}

/// Removes the quotes around a display name; `None` if the quotes do not match.
fn unquoted(name: &str) -> Option<String> {
    let Some(rest) = name.strip_prefix('"') else {
        return Some(name.to_owned());
    };
    let (mut text, mut chars) = (String::new(), rest.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => return chars.as_str().is_empty().then_some(text),
            '\\' => text.push(chars.next()?),
            c => text.push(c),
        }
    }
    None
}

impl fmt::Display for Address {
    /// Formats the address so that parsing gives the same address again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            None => f.write_str(&self.email),
            Some(name) => {
                let name = name.replace('\\', "\\\\").replace('"', "\\\"");
                write!(f, "\"{name}\" <{}>", self.email)
            }
        }
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

/// An address in its form for comparison: the domain in ASCII and without a final dot, all in lower case.
/// Case is also ignored before the `@`. By RFC 5321 a mail server could distinguish `Ana@` from `ana@`, but
/// no person would take them for two people.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressKey(String);

impl AddressKey {
    /// The key of an address from outside, such as one in a provider's report. If the text is not an address,
    /// the key is the text in lower case.
    ///
    /// ```
    /// use docg_core::address::AddressKey;
    ///
    /// let given = AddressKey::of("ana@exämple.com");
    /// assert_eq!(given, AddressKey::of(" Ana@XN--EXMPLE-CUA.com. "));
    /// assert_ne!(given, AddressKey::of("ana@example.com"));
    /// ```
    #[must_use]
    pub fn of(text: &str) -> Self {
        let text = text.trim();
        if let Ok(address) = text.trim_end_matches('.').parse::<Address>() {
            return address.key();
        }
        match text.rsplit_once('@') {
            Some((local, domain)) => {
                let domain = domain.trim_end_matches('.');
                let domain = ascii_domain(domain).unwrap_or_else(|| domain.to_lowercase());
                Self(format!("{}@{domain}", local.to_lowercase()))
            }
            None => Self(text.to_lowercase()),
        }
    }

    /// The key as a text, for hashes and indexes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// True if two texts name the same mailbox.
#[must_use]
pub fn is_same(one: &str, other: &str) -> bool {
    one == other || AddressKey::of(one) == AddressKey::of(other)
}

/// The value of a parameter that is one address or a list of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Addresses(Vec<Address>);

impl Addresses {
    /// The addresses, in the given order.
    #[must_use]
    pub fn into_vec(self) -> Vec<Address> {
        self.0
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> de::Visitor<'de> for OneOrMany {
            type Value = Addresses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an e-mail address or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Addresses, E> {
                let address = text.parse().map_err(E::custom)?;
                Ok(Addresses(vec![address]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Addresses, A::Error> {
                let mut addresses = Vec::new();
                while let Some(address) = items.next_element()? {
                    if addresses.len() == PEOPLE {
                        let least = PEOPLE + 1;
                        return Err(de::Error::invalid_length(least, &"at most 100 addresses"));
                    }
                    addresses.push(address);
                }
                Ok(Addresses(addresses))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

/// Why a text cannot be a person's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has no visible character.
    #[error("a name has at least one visible character")]
    Blank,
    /// The name is longer than [`MAX_NAME`].
    #[error("a name has at most 200 characters")]
    TooLong,
    /// The name has line breaks or other control characters.
    #[error("a name is one line, without control characters")]
    ControlCharacter,
    /// The name contains an e-mail address, so that it could pass for somebody else's address.
    #[error("a name holds no e-mail address")]
    HoldsAddress,
}

/// Checks and trims a person's name. Accepts names in every script, also right-to-left names. Refuses
/// characters that change the direction of the surrounding text.
///
/// # Errors
///
/// [`NameError`] tells why the text is not a name.
pub fn person_name(text: &str) -> Result<String, NameError> {
    let name = text.trim();
    if name.chars().nth(MAX_NAME).is_some() {
        return Err(NameError::TooLong);
    }
    if name.contains(|c: char| c.is_control() || turns_lines_or_direction(c)) {
        return Err(NameError::ControlCharacter);
    }
    if name.chars().all(|c| c.is_whitespace() || is_invisible(c)) {
        return Err(NameError::Blank);
    }
    let is_end = |c: char| c.is_whitespace() || "<>()[]\",;:".contains(c);
    if name.split(is_end).any(|word| Address::plain(word).is_ok()) {
        return Err(NameError::HoldsAddress);
    }
    Ok(name.to_owned())
}

/// True for line and paragraph separators, and for the embeddings, overrides and isolates of Unicode's
/// bidirectional algorithm.
const fn turns_lines_or_direction(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// True for invisible characters: format characters, fillers and variation selectors.
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{17b4}'
            | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_taken_as_mail_servers_take_them() {
        for (given, name, ascii) in [
            ("ann@example.com", None, "ann@example.com"),
            (" Ann@Example.COM ", None, "Ann@example.com"),
            ("a+b_c.d@sub.example.com", None, "a+b_c.d@sub.example.com"),
            ("ann@localhost", None, "ann@localhost"),
            ("<ann@example.com>", None, "ann@example.com"),
            ("ann@exämple.com", None, "ann@xn--exmple-cua.com"),
            ("ann@例え.jp", None, "ann@xn--r8jz45g.jp"),
            ("Ann <ann@example.com>", Some("Ann"), "ann@example.com"),
            ("Silva, Ana <a@x.br>", Some("Silva, Ana"), "a@x.br"),
            ("\"Silva, Ana\" <a@x.br>", Some("Silva, Ana"), "a@x.br"),
            (r#""A \"B\" C" <a@x.br>"#, Some("A \"B\" C"), "a@x.br"),
            ("محمد <a@x.br>", Some("محمد"), "a@x.br"),
            ("李四 👩‍⚖️ <a@x.br>", Some("李四 👩‍⚖️"), "a@x.br"),
        ] {
            let address: Address = given.parse().unwrap_or_else(|e| panic!("{given}: {e}"));
            assert_eq!((address.name(), address.ascii()), (name, ascii), "{given}");
        }
    }

    #[test]
    fn what_mail_cannot_be_sent_to_is_refused_for_its_reason() {
        let too_long = format!("abcdef@{}.example", ["x".repeat(60).as_str(); 4].join("."));
        for (given, why) in [
            ("", AddressError::Form),
            ("ann", AddressError::Form),
            ("ann@", AddressError::Form),
            ("@example.com", AddressError::Form),
            ("a@b@c", AddressError::Form),
            ("<ann@example.com", AddressError::LocalPart),
            ("\"Ann <ann@example.com>", AddressError::Form),
            ("\"a b\"@example.com", AddressError::LocalPart),
            ("a(comment)@example.com", AddressError::LocalPart),
            ("a b@example.com", AddressError::LocalPart),
            ("josé@example.com", AddressError::LocalPart),
            (".a@example.com", AddressError::LocalPart),
            ("a..b@example.com", AddressError::LocalPart),
            ("a@example.com, b@example.com", AddressError::Form),
            ("a@example.com\r\nBcc: b@example.com", AddressError::Form),
            ("a@[192.0.2.1]", AddressError::Domain),
            ("a@192.0.2.1", AddressError::Domain),
            ("a@example..com", AddressError::Domain),
            ("a@example.com.", AddressError::Domain),
            ("a@-example.com", AddressError::Domain),
            ("a@exa\u{200b}mple.com", AddressError::Domain),
            ("a@example.com\0", AddressError::Form),
            (&too_long, AddressError::TooLong),
            ("Ann\n<a@x.br>", AddressError::Form),
            (
                "Ann\u{202e} <a@x.br>",
                AddressError::Name(NameError::ControlCharacter),
            ),
            (
                "a@x.br, Ann <b@x.br>",
                AddressError::Name(NameError::HoldsAddress),
            ),
        ] {
            assert_eq!(given.parse::<Address>(), Err(why), "{given:?}");
        }
        assert!(
            format!("{}@x.br", "x".repeat(65))
                .parse::<Address>()
                .is_err()
        );
        assert!("x".repeat(1 << 20).parse::<Address>().is_err());
    }

    #[test]
    fn all_spellings_of_one_mailbox_have_one_key() {
        let spellings = [
            "ana@exämple.com",
            "ANA@EXÄMPLE.COM",
            "ana@exa\u{308}mple.com",
            "ana@xn--exmple-cua.com",
            "Ana@XN--EXMPLE-CUA.COM.",
            " Ana <ana@exämple.com>",
            "ana@exämple。com",
        ];
        for one in spellings {
            for other in spellings {
                assert!(is_same(one, other), "{one} {other}");
            }
            assert!(!is_same(one, "ana@example.com"));
        }
        assert!(is_same("JOSÉ@example.com", "josé@EXAMPLE.com."));
        assert!(!is_same("", "a@example.com"));
    }

    #[test]
    fn a_name_is_visible_one_line_and_nobody_s_address() {
        for (given, why) in [
            ("", NameError::Blank),
            (" \t", NameError::Blank),
            ("\u{200b}", NameError::Blank),
            ("\u{feff}\u{3164}", NameError::Blank),
            ("Ana\nSilva", NameError::ControlCharacter),
            ("Ana\u{b}Silva", NameError::ControlCharacter),
            ("Ana\u{2028}Silva", NameError::ControlCharacter),
            ("Ana\u{202e}avliS", NameError::ControlCharacter),
            ("ana@example.com", NameError::HoldsAddress),
            ("Ana <ana@example.com>", NameError::HoldsAddress),
            (&"x".repeat(201), NameError::TooLong),
        ] {
            assert_eq!(person_name(given), Err(why), "{given:?}");
        }
        for good in [
            "Ana",
            "Silva, Ana",
            "Ana @ Acme",
            "محمد",
            "אנה",
            "Ана",
            "李四",
            "👩‍⚖️",
            &"x".repeat(200),
        ] {
            assert_eq!(person_name(good).as_deref(), Ok(good));
        }
    }

    proptest! {
        #[test]
        fn what_is_read_reads_the_same_again(
            text in prop_oneof![
                any::<String>(),
                "[\\PC]{0,20} ?<?[a-zA-Z0-9.+'\"() é@-]{0,12}@[a-zA-Z0-9.äß例\\[\\]-]{0,12}>?",
            ],
        ) {
            let Ok(address) = text.parse::<Address>() else { return Ok(()) };
            prop_assert!(address.ascii().is_ascii());
            prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address.clone()));
            let ascii: Address = address.ascii().parse().expect("the ASCII form is an address");
            prop_assert_eq!(ascii.key(), address.key());
            prop_assert_eq!(AddressKey::of(address.email()), address.key());
        }
    }
}
