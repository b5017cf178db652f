//! Everything that a template sees: the bundled files, the fonts, its data, and a date.

use std::sync::LazyLock;

use chrono::{Datelike, NaiveDate};
use serde_json::Value;
use typst::{
    Library, LibraryExt, World,
    diag::{FileError, FileResult, PackageError},
    foundations::{Bytes, Datetime, Duration},
    syntax::{FileId, Source, VirtualRoot},
    text::{Font, FontBook},
    utils::LazyHash,
};

use super::{
    fonts::FONTS,
    templates::{Templates, file_id},
};

/// The file that templates read their data from: `json("/data.json")`.
const DATA: &str = "data.json";

static LIBRARY: LazyLock<LazyHash<Library>> = LazyLock::new(|| LazyHash::new(Library::default()));

static DATA_ID: LazyLock<FileId> =
    LazyLock::new(|| file_id(DATA).expect("a plain file name is a path"));

/// Everything that the template sees in one compilation.
pub(super) struct Sandbox<'a> {
    templates: &'a Templates,
    main: FileId,
    data: Bytes,
    today: NaiveDate,
}

impl<'a> Sandbox<'a> {
    pub(super) fn new(
        templates: &'a Templates,
        main: FileId,
        data: &Value,
        today: NaiveDate,
    ) -> Self {
        Self {
            templates,
            main,
            data: Bytes::from_string(spaced(data).to_string()),
            today,
        }
    }
}

impl World for Sandbox<'_> {
    fn library(&self) -> &LazyHash<Library> {
        &LIBRARY
    }

    fn book(&self) -> &LazyHash<FontBook> {
        &FONTS.book
    }

    fn main(&self) -> FileId {
        self.main
    }

    fn source(&self, id: FileId) -> FileResult<Source> {
        self.templates.parsed(id).ok_or_else(|| refusal(id))
    }

    fn file(&self, id: FileId) -> FileResult<Bytes> {
        if id == *DATA_ID {
            return Ok(self.data.clone());
        }
        self.templates.bytes(id).ok_or_else(|| refusal(id))
    }

    fn font(&self, index: usize) -> Option<Font> {
        FONTS.fonts.get(index).cloned()
    }

    /// The day of the request, in every time zone.
    fn today(&self, _offset: Option<Duration>) -> Option<Datetime> {
        day(self.today)
    }
}

/// Replaces control characters such as tabs by blanks, except line breaks: fonts have no glyph for them.
fn spaced(data: &Value) -> Value {
    let blank = |c: char| match c {
        '\n' | '\r' => c,
        c if c.is_whitespace() && c.is_control() => ' ',
        c => c,
    };
    match data {
        Value::String(text) => Value::String(text.chars().map(blank).collect()),
        Value::Array(items) => items.iter().map(spaced).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            fields
                .map(|(name, field)| (name.clone(), spaced(field)))
                .collect()
        }
        other => other.clone(),
    }
}

/// Converts a date to Typst's type. `None` for years that Typst cannot express.
pub(super) fn day(date: NaiveDate) -> Option<Datetime> {
    let (month, day) = (
        u8::try_from(date.month()).ok()?,
        u8::try_from(date.day()).ok()?,
    );
    Datetime::from_ymd(date.year(), month, day)
}

fn refusal(id: FileId) -> FileError {
    match id.root() {
        VirtualRoot::Package(_) => FileError::Package(PackageError::Other(Some(
            "templates use no packages".into(),
        ))),
        VirtualRoot::Project => FileError::Other(Some(
            format!(
                "`{}` is not among the bundled files",
                id.vpath().get_with_slash()
            )
            .into(),
        )),
    }
}
