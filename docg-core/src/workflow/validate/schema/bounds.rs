//! Computes from a schema alone how many subschemas its references can apply to one place of the data.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use jsonschema::PatternOptions;
use serde_json::{Map, Value};

use super::SchemaFault;
use crate::workflow::variables::{push_token, shortened};

/// The largest number of subschemas in a schema.
const MAX_SUBSCHEMAS: usize = 5_000;
/// The largest number of subschemas that apply at one place of the data, each counted once per reference.
const MAX_AT_ONE_PLACE: usize = 2_000;
/// The longest chain of subschemas that apply to the same place.
const MAX_CHAIN: usize = 64;
/// The size limit of all patterns of a schema together, compiled, in bytes.
const MAX_ALL_PATTERN_BYTES: usize = 2 * MAX_PATTERN_BYTES;
/// The size limit of one compiled pattern, in bytes.
pub(super) const MAX_PATTERN_BYTES: usize = 8 * 1024 * 1024;
/// The size classes of compiled patterns, in bytes. Matching takes one step for each byte of the text; the
/// cost of a step grows with the pattern's size.
const PATTERN_SIZES: [usize; 5] = [
    2 * 1024,
    16 * 1024,
    128 * 1024,
    1024 * 1024,
    MAX_PATTERN_BYTES,
];
/// How many bytes of a compiled pattern add 1 to the price of a step.
const PATTERN_STEP: usize = 4096;

/// Keywords with one subschema (or, in older drafts, a list of them).
const ONE: [&str; 12] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords with a list of subschemas.
const MANY: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords with subschemas by name.
const NAMED: [&str; 6] = [
    "$defs",
    "definitions",
    "dependencies",
    "dependentSchemas",
    "patternProperties",
    "properties",
];
/// The keywords whose subschemas apply to the same value as the schema itself.
const SAME_PLACE: [&str; 9] = [
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "dependencies",
    "dependentSchemas",
];
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

/// The measured size of a schema.
#[derive(Debug)]
pub(super) struct Bounds {
    /// The largest number of subschemas that apply at one place of the data.
    pub(super) widest: usize,
    /// The largest number of bytes of the schema that an error may repeat.
    pub(super) repeated_bytes: usize,
    /// The number of patterns.
    pub(super) patterns: usize,
    /// The price of matching a byte of text against a pattern.
    pub(super) pattern_price: u64,
    /// The price of matching a byte of a name against all patterns for names.
    pub(super) name_price: u64,
}

/// Measures a schema, and refuses it if a limit is exceeded.
pub(super) fn measure(schema: &Value) -> Result<Bounds, SchemaFault> {
    let mut walk = Walk::default();
    walk.add(schema, None, None)?;
    let mut next = 0;
    while next < walk.subschemas.len() {
        walk.look_into(next)?;
        next += 1;
    }
    walk.follow_references(schema)?;
    let mut widest = 1;
    for index in 0..walk.subschemas.len() {
        let (count, longest) = walk.unfold(index, 0)?;
        // Each `unevaluated…` keyword visits all subschemas that apply at its place once more, and each link
        // of a chain may have such a keyword.
        let looks = if walk.looks_back { longest + 1 } else { 1 };
        widest = widest.max(count * looks);
    }
    let (pattern_price, name_price) = walk.pattern_prices()?;
    Ok(Bounds {
        widest,
        repeated_bytes: walk.repeated_bytes,
        patterns: walk.patterns.len() + walk.name_patterns.len(),
        pattern_price,
        name_price,
    })
}

/// A subschema's place in its parent: the keyword, and the subschema's name or index under this keyword.
type Step<'s> = (&'s str, Option<Cow<'s, str>>);

struct Subschema<'s> {
    value: &'s Value,
    parent: Option<usize>,
    step: Option<Step<'s>>,
    /// The subschemas that apply to the same place.
    same_place: Vec<usize>,
    unfolded: Unfolded,
}

#[derive(Clone, Copy)]
enum Unfolded {
    No,
    UnderWay,
    /// The number of subschemas that apply at the subschema's place, itself included, and the length of the
    /// longest chain.
    Is(usize, usize),
}

#[derive(Default)]
struct Walk<'s> {
    subschemas: Vec<Subschema<'s>>,
    by_address: HashMap<*const Value, usize>,
    anchors: HashMap<&'s str, usize>,
    references: Vec<(usize, &'s str, &'s str)>,
    /// The patterns, each with one of the subschemas that have it.
    patterns: BTreeMap<&'s str, usize>,
    name_patterns: Vec<(&'s str, usize)>,
    /// True if the schema has an `unevaluated…` keyword, which visits all subschemas that apply at its place.
    looks_back: bool,
    repeated_bytes: usize,
}

impl<'s> Walk<'s> {
    fn add(
        &mut self,
        value: &'s Value,
        parent: Option<usize>,
        step: Option<Step<'s>>,
    ) -> Result<usize, SchemaFault> {
        let address = std::ptr::from_ref(value);
        if let Some(known) = self.by_address.get(&address) {
            return Ok(*known);
        }
        let index = self.subschemas.len();
        if index == MAX_SUBSCHEMAS {
            let why = format!("the schema has more than {MAX_SUBSCHEMAS} subschemas");
            return Err((String::new(), why));
        }
        self.subschemas.push(Subschema {
            value,
            parent,
            step,
            same_place: Vec::new(),
            unfolded: Unfolded::No,
        });
        self.by_address.insert(address, index);
        Ok(index)
    }

    /// Adds the subschemas, references, anchors and patterns of a subschema.
    fn look_into(&mut self, index: usize) -> Result<(), SchemaFault> {
        let Value::Object(keywords) = self.subschemas[index].value else {
            return Ok(());
        };
        if index > 0 && keywords.get("$id").is_some_and(Value::is_string) {
            let why = "only the whole schema can have an $id; use $anchor, or the path to it";
            return Err((self.pointer(index, Some("$id")), why.to_owned()));
        }
        for (keyword, held) in keywords {
            let keyword = keyword.as_str();
            match held {
                Value::Array(items) if MANY.contains(&keyword) || ONE.contains(&keyword) => {
                    for (place, item) in items.iter().enumerate() {
                        self.hold(index, keyword, Some(place.to_string().into()), item)?;
                    }
                }
                Value::Object(named) if NAMED.contains(&keyword) => {
                    for (name, item) in named {
                        // A dependency may also be a list of names instead of a subschema.
                        if !item.is_array() {
                            self.hold(index, keyword, Some(Cow::Borrowed(name)), item)?;
                        }
                    }
                }
                _ if ONE.contains(&keyword) => self.hold(index, keyword, None, held)?,
                Value::String(target) if REFERENCES.contains(&keyword) => {
                    self.references.push((index, keyword, target));
                }
                Value::String(name) if matches!(keyword, "$anchor" | "$dynamicAnchor") => {
                    self.anchors.insert(name, index);
                }
                Value::String(pattern) if keyword == "pattern" => {
                    self.patterns.insert(pattern, index);
                }
                _ => {}
            }
        }
        self.note_names_and_values(index, keywords);
        Ok(())
    }

    fn note_names_and_values(&mut self, index: usize, keywords: &'s Map<String, Value>) {
        self.looks_back |= keywords.contains_key("unevaluatedProperties")
            || keywords.contains_key("unevaluatedItems");
        if let Some(Value::Object(named)) = keywords.get("patternProperties") {
            let patterns = named.keys().map(|pattern| (pattern.as_str(), index));
            self.name_patterns.extend(patterns);
        }
        for keyword in ["enum", "const", "required", "dependentRequired"] {
            if let Some(value) = keywords.get(keyword) {
                self.repeated_bytes = self.repeated_bytes.max(value.to_string().len());
            }
        }
    }

    fn hold(
        &mut self,
        parent: usize,
        keyword: &'s str,
        name: Option<Cow<'s, str>>,
        value: &'s Value,
    ) -> Result<(), SchemaFault> {
        let index = self.add(value, Some(parent), Some((keyword, name)))?;
        if SAME_PLACE.contains(&keyword) {
            self.subschemas[parent].same_place.push(index);
        }
        Ok(())
    }

    /// Resolves the references. The target of a reference applies wherever the reference does. A
    /// reference may point at any value in the schema. A value that is not under a keyword for subschemas is
    /// checked as a subschema all the same.
    fn follow_references(&mut self, root: &'s Value) -> Result<(), SchemaFault> {
        let own_name = root.get("$id").and_then(Value::as_str).unwrap_or_default();
        let own_name = own_name.trim_end_matches('#');
        let mut next = 0;
        let mut seen = self.subschemas.len();
        while let Some((index, keyword, reference)) = self.references.get(next).copied() {
            next += 1;
            let within = reference.strip_prefix(own_name).unwrap_or(reference);
            let target = match within.strip_prefix('#') {
                Some("") => Some(0),
                None if within.is_empty() => Some(0),
                Some(fragment) if fragment.starts_with('/') => {
                    match root.pointer(&percent_decoded(fragment)) {
                        Some(value) => Some(self.add(value, Some(0), None)?),
                        None => None,
                    }
                }
                Some(anchor) => self.anchors.get(anchor).copied(),
                None => None,
            };
            let Some(target) = target else {
                let why = format!(
                    "{keyword} {:?} leads nowhere in this schema; others are not fetched",
                    shortened(reference)
                );
                return Err((self.pointer(index, None), why));
            };
            self.subschemas[index].same_place.push(target);
            while seen < self.subschemas.len() {
                self.look_into(seen)?;
                seen += 1;
            }
        }
        Ok(())
    }

    /// The number of subschemas that apply at this subschema's place, and the length of their longest chain.
    fn unfold(&mut self, index: usize, chain: usize) -> Result<(usize, usize), SchemaFault> {
        let refused = |walk: &Self, why: String| Err((walk.pointer(index, None), why));
        match self.subschemas[index].unfolded {
            Unfolded::Is(count, longest) => return Ok((count, longest)),
            Unfolded::UnderWay => {
                let why = "it refers to itself without going deeper into the data";
                return refused(self, why.to_owned());
            }
            Unfolded::No => {}
        }
        self.subschemas[index].unfolded = Unfolded::UnderWay;
        let (mut count, mut longest) = (1_usize, 0);
        for position in 0..self.subschemas[index].same_place.len() {
            if chain == MAX_CHAIN {
                longest = MAX_CHAIN;
                break;
            }
            let inner = self.subschemas[index].same_place[position];
            let (inner_count, inner_longest) = self.unfold(inner, chain + 1)?;
            count = count.saturating_add(inner_count);
            longest = longest.max(inner_longest + 1);
        }
        if count > MAX_AT_ONE_PLACE {
            let why = format!(
                "more than {MAX_AT_ONE_PLACE} subschemas apply at one place, with all that they refer to"
            );
            return refused(self, why);
        }
        if longest >= MAX_CHAIN {
            let why = format!("subschemas refer to one another more than {MAX_CHAIN} deep");
            return refused(self, why);
        }
        self.subschemas[index].unfolded = Unfolded::Is(count, longest);
        Ok((count, longest))
    }

    fn pattern_prices(&self) -> Result<(u64, u64), SchemaFault> {
        let (mut all, mut largest, mut for_names) = (0, 0, 0);
        let texts = self
            .patterns
            .iter()
            .map(|(pattern, at)| (*pattern, *at, "pattern"));
        let names = self.name_patterns.iter();
        let names = names.map(|(pattern, at)| (*pattern, *at, "patternProperties"));
        for (pattern, at, keyword) in texts.chain(names) {
            let refused = |why| (self.pointer(at, Some(keyword)), why);
            let size = pattern_size(pattern).map_err(refused)?;
            all += size;
            if all > MAX_ALL_PATTERN_BYTES {
                let why = "the patterns of the schema are too large when they are compiled";
                return Err(refused(why.to_owned()));
            }
            if keyword == "pattern" {
                largest = largest.max(size);
            } else {
                for_names += size;
            }
        }
        let price = |size: usize| size.div_ceil(PATTERN_STEP) as u64;
        Ok((price(largest), price(for_names)))
    }

    fn pointer(&self, index: usize, keyword: Option<&str>) -> String {
        let mut steps = Vec::new();
        let mut at = Some(index);
        while let Some(index) = at {
            steps.extend(&self.subschemas[index].step);
            at = self.subschemas[index].parent;
        }
        let mut pointer = String::new();
        for (keyword, name) in steps.into_iter().rev() {
            push_token(&mut pointer, keyword);
            if let Some(name) = name {
                push_token(&mut pointer, &shortened(name));
            }
        }
        if let Some(keyword) = keyword {
            push_token(&mut pointer, keyword);
        }
        pointer
    }
}

/// The smallest size class in which the pattern can be compiled.
fn pattern_size(pattern: &str) -> Result<usize, String> {
    let schema = serde_json::json!({"pattern": pattern});
    let fits = |size: &usize| {
        let options = PatternOptions::regex().size_limit(*size);
        jsonschema::options()
            .offline()
            .with_pattern_options(options)
            .build(&schema)
            .is_ok()
    };
    PATTERN_SIZES.into_iter().find(fits).ok_or_else(|| {
        format!(
            "the pattern {:?} cannot be used: it is wrong, too large, or needs backtracking",
            shortened(pattern)
        )
    })
}

/// Percent-decodes a fragment into a JSON pointer. Invalid escapes stay as they are.
fn percent_decoded(fragment: &str) -> String {
    let bytes = fragment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = fragment
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(escaped.unwrap_or(bytes[at]));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).unwrap_or_else(|_| fragment.to_owned())
}
