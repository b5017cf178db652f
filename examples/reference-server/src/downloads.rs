//! Documents over HTTP.

/// The value of `Content-Disposition` (RFC 6266): the name in ASCII, and as it is.
#[must_use]
pub fn disposition(kind: &str, filename: &str) -> String {
    use std::fmt::Write as _;
    let plain: String = filename
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || " ._-()".contains(c) { c } else { '_' })
        .collect();
    let mut encoded = String::with_capacity(filename.len());
    for byte in filename.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::disposition;

    #[test]
    fn a_file_name_cannot_break_out_of_the_header() {
        let header = disposition("inline", "São \"x\"\r\nSet-Cookie: a.pdf");
        assert_eq!(
            header,
            "inline; filename=\"S_o _x___Set-Cookie_ a.pdf\"; filename*=UTF-8''S%C3%A3o%20%22x%22%0D%0ASet-Cookie%3A%20a.pdf"
        );
    }
}
