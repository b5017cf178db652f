//! The templates, and the data that each template needs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use serde::Deserialize;
use serde_json::Value;
use typst::{
    foundations::Bytes,
    syntax::{FileId, RootedPath, Source, VirtualPath, VirtualRoot},
};

use super::{bundle, fields};

/// The maximum number of missing paths in a report: each entry of a list of a hundred thousand may lack a
/// field.
pub const MOST_MISSING: usize = 50;

/// A set of templates with the files that they use.
///
/// A `.typ` file at the top level is a template, named by its file name. Files in folders are used by
/// templates and cannot be rendered by name. `contract.json` beside `contract.typ` is its [`Declaration`].
#[derive(Debug, Clone)]
pub struct Templates {
    files: HashMap<FileId, File>,
    declarations: BTreeMap<String, Declaration>,
}

#[derive(Debug, Clone)]
struct File {
    bytes: Bytes,
    /// True if the file is in a folder, so that every template may use it.
    is_shared: bool,
    /// The parsed source, if it is a Typst file.
    source: Option<Source>,
}

/// A template's description and required data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Declaration {
    /// A sentence that says what the document is.
    pub description: String,
    /// The paths in the data that the template requires. `items[].quantity` requires `quantity` in each entry
    /// of the list `items`; `items[]` requires at least one entry.
    pub required: Vec<String>,
}

/// The reason why files do not make a set of templates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplatesError {
    /// The path leaves the folder, or Typst cannot express it.
    #[error("`{path}` is no path inside a folder of templates: {reason}")]
    Path {
        /// The path as given.
        path: String,
        /// The reason.
        reason: String,
    },
    /// The Typst file is not UTF-8.
    #[error("`{path}` is not UTF-8")]
    NotText {
        /// The path as given.
        path: String,
    },
    /// The declaration is not valid JSON for a [`Declaration`].
    #[error("`{path}` is no declaration: {source}")]
    Declaration {
        /// The path as given.
        path: String,
        /// The parser's error.
        source: serde_json::Error,
    },
    /// The template has no declaration.
    #[error("template `{name}` has no declaration beside it")]
    Undeclared {
        /// The template.
        name: String,
    },
}

impl Templates {
    /// The templates that come with the program. They are parsed at the first call; further calls are cheap.
    ///
    /// # Panics
    ///
    /// Never in a build whose tests pass: the files are constants.
    #[must_use]
    pub fn bundled() -> Self {
        static BUNDLED: LazyLock<Templates> = LazyLock::new(|| {
            Templates::new(bundle::FILES.iter().copied()).expect("the bundled files are templates")
        });
        BUNDLED.clone()
    }

    /// Makes a set from files in memory, each with its path inside the folder of templates.
    ///
    /// # Errors
    ///
    /// [`TemplatesError`] names the file that is wrong.
    pub fn new<P, D>(files: impl IntoIterator<Item = (P, D)>) -> Result<Self, TemplatesError>
    where
        P: Into<String>,
        D: AsRef<[u8]> + Send + Sync + 'static,
    {
        let mut templates = Self {
            files: HashMap::new(),
            declarations: BTreeMap::new(),
        };
        let mut names = Vec::new();
        for (path, data) in files {
            let path = path.into();
            let id = file_id(&path)?;
            let bytes = Bytes::new(data);
            let is_top = !path.contains('/');
            let mut source = None;
            if path.ends_with(".typ") {
                let text = str::from_utf8(&bytes)
                    .map_err(|_| TemplatesError::NotText { path: path.clone() })?;
                source = Some(Source::new(id, text.to_owned()));
                if is_top {
                    names.push(path);
                }
            } else if let Some(stem) = path.strip_suffix(".json").filter(|_| is_top) {
                let declaration = docg_core::json::read_message(&bytes).map_err(|source| {
                    TemplatesError::Declaration {
                        path: path.clone(),
                        source,
                    }
                })?;
                templates
                    .declarations
                    .insert(format!("{stem}.typ"), declaration);
            }
            templates.files.insert(
                id,
                File {
                    bytes,
                    is_shared: !is_top,
                    source,
                },
            );
        }
        if let Some(name) = names
            .into_iter()
            .find(|name| !templates.declarations.contains_key(name))
        {
            return Err(TemplatesError::Undeclared { name });
        }
        Ok(templates)
    }

    /// True if there is a template of this name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.main(name).is_some()
    }

    /// The names of the templates, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.declarations
            .keys()
            .map(String::as_str)
            .filter(|name| self.contains(name))
    }

    /// The Typst source of a template.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<&str> {
        let file = self.files.get(&self.main(name)?)?;
        file.source.as_ref().map(Source::text)
    }

    /// All files with their paths, as [`new`](Self::new) takes them.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let files = self.files.iter();
        let file = |(id, file): (&FileId, &File)| {
            let path = id.vpath().get_without_slash().to_owned();
            (path, file.bytes.to_vec())
        };
        files.map(file).collect()
    }

    /// The size of a template in bytes, with all files in folders, because any template may use those.
    #[must_use]
    pub fn size(&self, name: &str) -> Option<usize> {
        let shared = self.files.values().filter(|file| file.is_shared);
        let shared: usize = shared.map(|file| file.bytes.len()).sum();
        self.source(name).map(|text| text.len() + shared)
    }

    /// The declaration of a template.
    #[must_use]
    pub fn declaration(&self, name: &str) -> Option<&Declaration> {
        self.contains(name)
            .then(|| self.declarations.get(name))
            .flatten()
    }

    /// The first [`MOST_MISSING`] required paths that `data` does not fill: absent, null, or blank text. The
    /// list is also empty if there is no template of this name; check with [`contains`](Self::contains).
    ///
    /// ```
    /// use reference_server::pdf::Templates;
    /// use serde_json::json;
    ///
    /// let data = json!({"signers": [{"name": "Legal representative"}]});
    /// let missing = Templates::bundled().missing_fields("contract.typ", &data);
    /// assert!(missing.contains(&"customer.name".to_owned()));
    /// assert!(missing.contains(&"signers[0].email".to_owned()));
    /// ```
    #[must_use]
    pub fn missing_fields(&self, name: &str, data: &Value) -> Vec<String> {
        let Some(declaration) = self.declaration(name) else {
            return Vec::new();
        };
        let mut missing: Vec<String> = Vec::new();
        for pattern in &declaration.required {
            for path in fields::unfilled(pattern, data, MOST_MISSING) {
                // If a list is missing, the pattern of each field of its entries reports it; keep the path
                // once.
                if missing.len() < MOST_MISSING && !missing.contains(&path) {
                    missing.push(path);
                }
            }
        }
        missing
    }

    /// The main file of a template. `None` if there is no such template.
    pub(super) fn main(&self, name: &str) -> Option<FileId> {
        if !self.declarations.contains_key(name) {
            return None;
        }
        let id = file_id(name).ok()?;
        self.files.contains_key(&id).then_some(id)
    }

    /// The parsed Typst file of an id.
    pub(super) fn parsed(&self, id: FileId) -> Option<Source> {
        self.files.get(&id)?.source.clone()
    }

    /// The content of the file of an id.
    pub(super) fn bytes(&self, id: FileId) -> Option<Bytes> {
        Some(self.files.get(&id)?.bytes.clone())
    }
}

/// Interns a path and returns Typst's id for it. Typst never frees ids, so call it only for names that are
/// among the known files.
pub(super) fn file_id(path: &str) -> Result<FileId, TemplatesError> {
    let path = VirtualPath::new(path).map_err(|reason| TemplatesError::Path {
        path: path.to_owned(),
        reason: reason.to_string(),
    })?;
    Ok(RootedPath::new(VirtualRoot::Project, path).intern())
}
