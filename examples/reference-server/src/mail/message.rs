//! The mail itself (RFC 5322).

use lettre::{
    Message,
    message::{
        Attachment, Body, Mailbox, MultiPart, SinglePart,
        header::{self, ContentTransferEncoding, ContentType},
    },
};

use super::{Mail, MailError};

/// Tells the recipients of a mail when only its file is left. Names may be encoded; this is not.
const RECIPIENTS: &str = "X-Docg-Recipients";

/// The longest line of a mail, without its end (RFC 5322, section 2.1.1).
const MAX_LINE: usize = 998;

/// Writes a mail out; with `note_recipients` so that [`recipients`] can tell them.
pub(super) fn write(
    mail: &Mail,
    from: &Mailbox,
    message_id: &str,
    note_recipients: bool,
) -> Result<Vec<u8>, MailError> {
    let unwritable = |e: lettre::error::Error| MailError::Unwritable(e.to_string());
    let mut builder = Message::builder()
        .from(from.clone())
        .message_id(Some(message_id.to_owned()))
        .subject(one_line(&mail.subject));
    for to in &mail.to {
        builder = builder.to(to.clone());
    }
    for cc in &mail.cc {
        builder = builder.cc(cc.clone());
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
    if !note_recipients {
        return Ok(message.formatted());
    }
    let addresses: Vec<&str> = mail
        .to
        .iter()
        .chain(&mail.cc)
        .map(|mailbox| mailbox.email.as_ref())
        .collect();
    message.headers_mut().insert_raw(header::HeaderValue::new(
        header::HeaderName::new_from_ascii_str(RECIPIENTS),
        addresses.join(" "),
    ));
    Ok(message.formatted())
}

/// Plain ASCII stays as it is, so that a link in it can be read in the mail's source; lettre would
/// break lines of more than 76 characters.
fn text_part(text: &str) -> SinglePart {
    let lines: Vec<&str> = text.lines().collect();
    let fits = |line: &&str| {
        line.len() <= MAX_LINE
            && line
                .bytes()
                .all(|b| b == b'\t' || (b' '..=b'~').contains(&b))
    };
    if !lines.iter().all(fits) {
        return SinglePart::plain(text.to_owned());
    }
    let mut content = lines.join("\r\n");
    content.push_str("\r\n");
    let encoding = ContentTransferEncoding::SevenBit;
    SinglePart::builder()
        .header(ContentType::TEXT_PLAIN)
        .body(Body::dangerous_pre_encoded(content.into_bytes(), encoding))
}

/// The addresses that a written mail is for.
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

/// A line break in a header would begin another one.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
