//! The codes that docg itself gives. Handlers add their own; a code has no meaning to the engine.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)+) => {
        $($(#[$doc])* pub const $name: &str = $code;)+
        /// All of the above, for tests and documentation.
        pub const ALL: &[&str] = &[$($code),+];
    };
}

codes! {
    /// A `{{path}}` names something that is not there.
    UNRESOLVED_VARIABLES = "unresolved_variables";
    /// A required parameter or field is missing or blank.
    MISSING_REQUIRED_FIELD = "missing_required_field";
    /// A value is there and has the wrong form.
    INVALID_FIELD_FORMAT = "invalid_field_format";
    /// A template parameter is blank.
    TEMPLATE_NOT_SELECTED = "template_not_selected";
    /// The named template does not exist.
    TEMPLATE_NOT_FOUND = "template_not_found";
    /// A tag that nothing fills, or broken syntax.
    TEMPLATE_INVALID_TAGS = "template_invalid_tags";
    /// A template that is large enough to be slow.
    TEMPLATE_LARGE_FILE = "template.large_file";
    /// The folder to save to does not exist.
    FOLDER_NOT_FOUND = "folder_not_found";
    /// A connection may not do what the workflow needs.
    INSUFFICIENT_PERMISSIONS = "insufficient_permissions";
    /// The authorization of a connection has run out.
    OAUTH_EXPIRED = "oauth_expired";
    /// The authorization of a connection was withdrawn.
    OAUTH_REVOKED = "oauth_revoked";
    /// A connection's API key is refused.
    API_KEY_INVALID = "api_key_invalid";
    /// The other side does not allow what it is asked for.
    CALL_FORBIDDEN = "call_forbidden";
    /// The account at the other side has no credits or no valid plan.
    PAYMENT_REQUIRED = "payment_required";
    /// There is nothing at an address of a provider.
    API_NOT_FOUND = "api_not_found";
    /// A connection cannot be reached or is not active.
    CONNECTION_ERROR = "connection_error";
    /// Nobody to deliver to.
    MISSING_RECIPIENT = "missing_recipient";
    /// Something that is no e-mail address.
    INVALID_EMAIL_FORMAT = "invalid_email_format";
    /// Nobody to sign.
    NO_SIGNERS = "no_signers";
    /// A signer without an e-mail address.
    SIGNER_MISSING_EMAIL = "signer_missing_email";
    /// The same address signs twice.
    DUPLICATE_SIGNER = "duplicate_signer";
    /// The same address approves twice.
    DUPLICATE_APPROVER = "duplicate_approver";
    /// A name that nobody can see, that is not one line, or that is an e-mail address.
    INVALID_SIGNER_NAME = "invalid_signer_name";
    /// A turn to sign that is not a whole number from 1 on.
    INVALID_SIGNER_ORDER = "invalid_signer_order";
    /// A field that nothing reads.
    UNKNOWN_FIELD = "unknown_field";
    /// A list with more entries than it may have.
    TOO_MANY = "too_many";
    /// A quorum of none, or of more than there are approvers.
    INVALID_QUORUM = "invalid_quorum";
    /// The other side asks to slow down.
    RATE_LIMIT = "rate_limit";
    /// A step did not end within its time.
    TIMEOUT = "timeout";
    /// The other side is not available.
    SERVICE_UNAVAILABLE = "service_unavailable";
    /// A handler broke off in a way that it did not foresee.
    HANDLER_PANICKED = "handler_panicked";
    /// Whether the effect happened is not known.
    OUTCOME_UNKNOWN = "outcome_unknown";
    /// A step's workers died too often.
    TOO_MANY_TAKEOVERS = "too_many_takeovers";
    /// Workers died too often while they had the execution, whatever they were at.
    TOO_MANY_INTERRUPTIONS = "too_many_interruptions";
    /// What is stored of it cannot be read.
    UNREADABLE = "unreadable";
    /// No handler for the node's type.
    UNKNOWN_NODE_TYPE = "unknown_node_type";
    /// A `when` expression failed.
    INVALID_CONDITION = "invalid_condition";
    /// A person decided against going on.
    REVIEW_REJECTED = "review_rejected";
    /// Nobody repaired it in time.
    REVIEW_EXPIRED = "review_expired";
    /// An approver said no.
    APPROVAL_REJECTED = "approval_rejected";
    /// No decision came in time.
    APPROVAL_EXPIRED = "approval_expired";
    /// A signer refused.
    SIGNATURE_DECLINED = "signature_declined";
    /// Not all signatures came in time.
    SIGNATURE_EXPIRED = "signature_expired";
    /// The request was withdrawn at the signature provider.
    SIGNATURE_CANCELED = "signature_canceled";
    /// The signature provider does not take the request as it is.
    SIGNATURE_REFUSED = "signature_request_refused";
    /// The signed document is not there yet.
    DOCUMENT_NOT_READY = "document_not_ready";
    /// The step was stopped because its execution was canceled.
    CANCELED = "canceled";
    /// The handler stopped because it was told to, before its effect.
    STOPPED = "stopped";
    /// A handler failed and gave no code.
    ERROR = "error";
    /// An output is larger than can be kept.
    OUTPUT_TOO_LARGE = "output_too_large";
    /// An output has what cannot be kept: a NUL character, or nesting without end.
    OUTPUT_NOT_STORABLE = "output_not_storable";
    /// A step asked for what only a step of another phase may ask for.
    WRONG_PHASE = "wrong_phase";
}
