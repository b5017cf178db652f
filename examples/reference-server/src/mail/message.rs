//! Composes the text of a mail, with its headers (RFC 5322).

use base64::{Engine as _, prelude::BASE64_STANDARD};
use docg_core::address::Address;
use lettre::{
    Message,
    address::Envelope,
    message::{
        Attachment, Body, MultiPart, SinglePart,
        header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue},
    },
};

use super::{Mail, MailError};

/// The header from which [`recipients`] reads a mail file's recipients. Other headers may be encoded; this
/// header is not.
const RECIPIENTS: &str = "X-Docg-Recipients";

/// The longest line of a mail, in bytes without the line end (RFC 5322, section 2.1.1).
const MAX_LINE: usize = 998;
/// The longest text, in bytes, that a header line holds unencoded.
const MAX_PLAIN: usize = 60;
/// The longest text in one encoded word, in bytes: a line with an encoded word ends before column 77
/// (RFC 2047).
const MAX_ENCODED: usize = 39;

/// Composes a mail. With `note_recipients`, adds the header from which [`recipients`] reads the recipients.
///
/// Header texts from outside are encoded here, so that no text can break a line, start another header or be
/// too long.
pub(super) fn write(
    mail: &Mail,
    from: &Address,
    message_id: &str,
    note_recipients: bool,
) -> Result<Vec<u8>, MailError> {
    let unwritable = |e: lettre::error::Error| MailError::Unwritable(e.to_string());
    let (to, cc) = mail.recipients();
    let mut builder = Message::builder()
        .envelope(envelope(from, mail)?)
        .raw_header(raw("From", from.ascii(), mailbox(from)))
        .raw_header(raw("Message-ID", message_id, message_id.to_owned()))
        .raw_header(raw("Subject", "", subject(&mail.subject)));
    for (name, list) in [("To", to), ("Cc", cc)] {
        if !list.is_empty() {
            let list: Vec<_> = list.into_iter().map(mailbox).collect();
            builder = builder.raw_header(raw(name, "", list.join(",\r\n ")));
        }
    }
    let text = text_part(&mail.body);
    let message = if mail.attachments.is_empty() {
        builder.singlepart(text)
    } else {
        let mut parts = MultiPart::mixed().singlepart(text);
        for attachment in &mail.attachments {
            parts = parts.singlepart(
                Attachment::new(one_line(&attachment.filename))
                    .body(attachment.content.to_vec(), attachment.content_type.clone()),
            );
        }
        builder.multipart(parts)
    };
    let mut message = message.map_err(unwritable)?;
    if note_recipients {
        let addresses = mail.accepted().join("\r\n ");
        message
            .headers_mut()
            .insert_raw(raw(RECIPIENTS, "", addresses));
    }
    Ok(message.formatted())
}

/// The SMTP envelope: the sender and all recipients of a mail.
pub(super) fn envelope(from: &Address, mail: &Mail) -> Result<Envelope, MailError> {
    // Skip lettre's checks: an [`Address`] has passed stricter checks.
    let address = |address: &Address| {
        let (local, domain) = address.parts();
        lettre::Address::new_dangerous(local, domain)
    };
    let (to, cc) = mail.recipients();
    let everybody = to.into_iter().chain(cc).map(address).collect();
    Envelope::new(Some(address(from)), everybody).map_err(|e| MailError::Unwritable(e.to_string()))
}

/// A header whose value is already encoded and folded. `plain` is the value that lettre itself reads.
fn raw(name: &'static str, plain: &str, encoded: String) -> HeaderValue {
    let name = HeaderName::new_from_ascii_str(name);
    HeaderValue::dangerous_new_pre_encoded(name, plain.to_owned(), encoded)
}

/// Formats an address as a mailbox in a header (RFC 5322, section 3.4), folded into short lines.
fn mailbox(address: &Address) -> String {
    let email = address.ascii();
    match address.name() {
        None => email.to_owned(),
        Some(name) if is_plain(name) => {
            let name = name.replace('\\', "\\\\").replace('"', "\\\"");
            format!("\"{name}\" <{email}>")
        }
        Some(name) => format!("{}\r\n <{email}>", encoded_words(name)),
    }
}

fn subject(text: &str) -> String {
    let text = one_line(text);
    match is_plain(&text) {
        true => text,
        false => encoded_words(&text),
    }
}

/// True if a text fits into one header line and keeps its meaning there.
fn is_plain(text: &str) -> bool {
    text.len() <= MAX_PLAIN
        && text.trim() == text
        && text.bytes().all(|b| (b' '..=b'~').contains(&b))
        && !text.contains("=?")
}

/// Encodes a text as words that hold any character (RFC 2047), one word a line. Mail readers join the words
/// without the blanks between them.
fn encoded_words(text: &str) -> String {
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.floor_char_boundary(MAX_ENCODED));
        words.push(format!("=?utf-8?b?{}?=", BASE64_STANDARD.encode(word)));
        rest = after;
    }
    words.join("\r\n ")
}

/// The text part of a mail. Plain ASCII stays unencoded, so that a link in it can be read in the mail's
/// source; lettre would break lines of more than 76 characters.
fn text_part(text: &str) -> SinglePart {
    // A lone carriage return is not allowed in a mail.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<&str> = text.lines().collect();
    let fits = |line: &&str| {
        line.len() <= MAX_LINE
            && line
                .bytes()
                .all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
    };
    if !lines.iter().all(fits) {
        return SinglePart::plain(text);
    }
    let mut content = lines.join("\r\n");
    content.push_str("\r\n");
    let encoding = ContentTransferEncoding::SevenBit;
    SinglePart::builder()
        .header(ContentType::TEXT_PLAIN)
        .body(Body::dangerous_pre_encoded(content.into_bytes(), encoding))
}

/// Reads the recipients' addresses from a mail that was composed with `note_recipients`.
pub(super) fn recipients(mail: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(mail);
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
    let line = unfolded.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(RECIPIENTS).then_some(value)
    });
    line.unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// Replaces control characters by blanks: a line break would start another header.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
