//! Finds `{{…}}` in a text.

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    /// Text without variables.
    Literal(&'t str),
    /// A variable `{{…}}`: `whole` with its braces, and `inner` the text between them.
    Variable { whole: &'t str, inner: &'t str },
    /// A `{{` without `}}`, and the rest of the text.
    Unclosed(&'t str),
}

/// Iterates over the parts of a text, in order. Reads each byte once, even if braces are never closed.
#[derive(Debug, Clone)]
pub(super) struct Pieces<'t>(&'t str);

pub(super) fn pieces(text: &str) -> Pieces<'_> {
    Pieces(text)
}

impl<'t> Iterator for Pieces<'t> {
    type Item = Piece<'t>;

    fn next(&mut self) -> Option<Piece<'t>> {
        let text = self.0;
        let piece = match text.find("{{") {
            _ if text.is_empty() => return None,
            None => Piece::Literal(text),
            Some(0) => match text.find("}}") {
                None => Piece::Unclosed(text),
                Some(end) => Piece::Variable {
                    whole: &text[..end + 2],
                    inner: &text[2..end],
                },
            },
            Some(start) => Piece::Literal(&text[..start]),
        };
        self.0 = match piece {
            Piece::Literal(part) | Piece::Variable { whole: part, .. } | Piece::Unclosed(part) => {
                &text[part.len()..]
            }
        };
        Some(piece)
    }
}

/// The text between the braces, if the whole text is one variable.
pub(super) fn sole(text: &str) -> Option<&str> {
    match pieces(text).next()? {
        Piece::Variable { whole, inner } if whole.len() == text.len() => Some(inner),
        _ => None,
    }
}
