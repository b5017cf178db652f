//! What protects the audit trail besides its chains.

mod privileges;
