//! The error codes that docg itself uses. Handlers add their own. No decision of the engine depends on a
//! code.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)+) => {
        $($(#[$doc])* pub const $name: &str = $code;)+
        /// All of the codes above, for tests and documentation.
        pub const ALL: &[&str] = &[$($code),+];
    };
}

codes! {
    /// A `{{path}}` refers to a value that does not exist.
    UNRESOLVED_VARIABLES = "unresolved_variables";
    /// A step's parameters are too large once their variables are filled in.
    PARAMETERS_TOO_LARGE = "parameters_too_large";
    /// A required parameter or field is missing or blank.
    MISSING_REQUIRED_FIELD = "missing_required_field";
    /// A value is present but has the wrong form.
    INVALID_FIELD_FORMAT = "invalid_field_format";
    /// A template parameter is blank.
    TEMPLATE_NOT_SELECTED = "template_not_selected";
    /// The named template does not exist.
    TEMPLATE_NOT_FOUND = "template_not_found";
    /// The template has a tag without a value to fill it, or broken syntax.
    TEMPLATE_INVALID_TAGS = "template_invalid_tags";
    /// The template is so large that rendering may be slow.
    TEMPLATE_LARGE_FILE = "template.large_file";
    /// The folder to save to does not exist.
    FOLDER_NOT_FOUND = "folder_not_found";
    /// A connection lacks the permissions that the workflow needs.
    INSUFFICIENT_PERMISSIONS = "insufficient_permissions";
    /// The authorization of a connection has expired.
    OAUTH_EXPIRED = "oauth_expired";
    /// The authorization of a connection was withdrawn.
    OAUTH_REVOKED = "oauth_revoked";
    /// A connection's API key is rejected.
    API_KEY_INVALID = "api_key_invalid";
    /// The provider forbids the call.
    CALL_FORBIDDEN = "call_forbidden";
    /// The provider account has no credits or no valid plan.
    PAYMENT_REQUIRED = "payment_required";
    /// The provider knows nothing at the address that docg called.
    API_NOT_FOUND = "api_not_found";
    /// A connection cannot be reached or is not active.
    CONNECTION_ERROR = "connection_error";
    /// A delivery has no recipient.
    MISSING_RECIPIENT = "missing_recipient";
    /// A value is not an e-mail address.
    INVALID_EMAIL_FORMAT = "invalid_email_format";
    /// A signature request has no signers.
    NO_SIGNERS = "no_signers";
    /// A signer has no e-mail address.
    SIGNER_MISSING_EMAIL = "signer_missing_email";
    /// An address occurs twice among the signers.
    DUPLICATE_SIGNER = "duplicate_signer";
    /// An address occurs twice among the approvers.
    DUPLICATE_APPROVER = "duplicate_approver";
    /// A signer's name has no visible character, has several lines, or is an e-mail address.
    INVALID_SIGNER_NAME = "invalid_signer_name";
    /// A signer's `order` is not a whole number from 1 on.
    INVALID_SIGNER_ORDER = "invalid_signer_order";
    /// A value has a field that docg does not know.
    UNKNOWN_FIELD = "unknown_field";
    /// A list has more entries than allowed.
    TOO_MANY = "too_many";
    /// A quorum is zero, or exceeds the number of approvers.
    INVALID_QUORUM = "invalid_quorum";
    /// The provider rejects calls because there were too many.
    RATE_LIMIT = "rate_limit";
    /// A step did not end within its timeout.
    TIMEOUT = "timeout";
    /// The provider is not available.
    SERVICE_UNAVAILABLE = "service_unavailable";
    /// A handler panicked.
    HANDLER_PANICKED = "handler_panicked";
    /// The outcome of an effect is unknown.
    OUTCOME_UNKNOWN = "outcome_unknown";
    /// Workers died too often while they ran the same step.
    TOO_MANY_TAKEOVERS = "too_many_takeovers";
    /// Workers died too often while they held the execution's lease, whatever they were doing.
    TOO_MANY_INTERRUPTIONS = "too_many_interruptions";
    /// Stored data of the execution cannot be read.
    UNREADABLE = "unreadable";
    /// A finished step keeps its result, although a person has changed the data that it was made from.
    MADE_FROM_EARLIER_DATA = "made_from_earlier_data";
    /// No handler is registered for the node's type.
    UNKNOWN_NODE_TYPE = "unknown_node_type";
    /// A `when` expression failed.
    INVALID_CONDITION = "invalid_condition";
    /// A person rejected the review.
    REVIEW_REJECTED = "review_rejected";
    /// Nobody completed the review in time.
    REVIEW_EXPIRED = "review_expired";
    /// An approver rejected the approval request.
    APPROVAL_REJECTED = "approval_rejected";
    /// The approvers did not decide in time.
    APPROVAL_EXPIRED = "approval_expired";
    /// The event that a step waited for did not arrive in time.
    EVENT_EXPIRED = "event_expired";
    /// A signer refused to sign.
    SIGNATURE_DECLINED = "signature_declined";
    /// Not all signers signed in time.
    SIGNATURE_EXPIRED = "signature_expired";
    /// The signature request was withdrawn at the provider.
    SIGNATURE_CANCELED = "signature_canceled";
    /// The provider refused the signature request.
    SIGNATURE_REFUSED = "signature_request_refused";
    /// The signed document is not available yet.
    DOCUMENT_NOT_READY = "document_not_ready";
    /// The step was stopped because its execution was canceled.
    CANCELED = "canceled";
    /// The handler was told to stop, and did so before its effect.
    STOPPED = "stopped";
    /// A handler failed without giving a code.
    ERROR = "error";
    /// An output is larger than can be stored.
    OUTPUT_TOO_LARGE = "output_too_large";
    /// The outputs of an execution together are larger than can be stored.
    TOTAL_OUTPUT_TOO_LARGE = "total_output_too_large";
    /// An output has content that cannot be stored: a NUL character, or nesting that is too deep.
    OUTPUT_NOT_STORABLE = "output_not_storable";
    /// A step's request for approval or signatures uses an approver's link or an envelope id that already
    /// belongs to another execution.
    REQUEST_NAME_TAKEN = "request_name_taken";
    /// A step made a request that only a step of another phase may make, such as one for signatures.
    WRONG_PHASE = "wrong_phase";
}
