//! Checks of templates. The module `permissions` asks whether a template exists and can be read. The handler
//! checks a template's tags, because only the handler knows their syntax.

use crate::{
    error::codes,
    i18n::Text,
    ids::NodeId,
    preflight::{Domain, Issue, TemplateFacts},
};

/// A warning if the template has at least `limit` bytes, because large templates are slow.
pub(super) fn large(
    facts: TemplateFacts,
    limit: u64,
    node: &NodeId,
    label: &str,
    field: &str,
) -> Option<Issue> {
    const MIB: u64 = 1024 * 1024;
    (facts.bytes >= limit).then(|| {
        let text = Text::key("issue-template-large-file")
            .with("label", label)
            .with("size", facts.bytes.div_ceil(MIB));
        Issue::warning(Domain::Template, codes::TEMPLATE_LARGE_FILE, text)
            .at(node.clone())
            .field(field)
            .tech(format!("{} bytes, large from {limit}", facts.bytes))
    })
}
