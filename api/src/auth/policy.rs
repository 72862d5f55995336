//! The one table of who may do what. A test holds that every operation of the OpenAPI document stands in it, and the gate
//! refuses what does not.

use tieline_openapi::v1::Scope;

/// What an operation asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Open,
    /// An API token with at least this scope.
    Scope(Scope),
    /// A join token.
    Join,
    /// The credential of the gateway in the path.
    OwnGateway,
}

const READ: Access = Access::Scope(Scope::Read);
const OPERATE: Access = Access::Scope(Scope::Operate);
const ADMIN: Access = Access::Scope(Scope::Admin);

/// Access by operationId.
pub const POLICY: &[(&str, Access)] = &[
    ("listConnections", READ),
    ("createConnection", OPERATE),
    ("getConnection", READ),
    ("patchConnection", OPERATE),
    ("deleteConnection", OPERATE),
    ("migrateConnection", OPERATE),
    ("acceptActivationKey", OPERATE),
    ("decodeActivationKey", READ),
    ("listMacSecChannels", READ),
    ("rotateMacSecKey", ADMIN),
    ("listMaintenanceEvents", READ),
    ("createMaintenanceEvent", ADMIN),
    ("getMaintenanceEvent", READ),
    ("deleteMaintenanceEvent", ADMIN),
    ("listPlans", READ),
    ("createPlan", READ),
    ("getPlan", READ),
    ("applyPlan", OPERATE),
    ("listOperations", READ),
    ("getOperation", READ),
    ("listAccounts", READ),
    ("getAccount", READ),
    ("listEnvironments", READ),
    ("getEnvironment", READ),
    ("listInterconnects", READ),
    ("getInterconnect", READ),
    ("listAttachPoints", READ),
    ("getAttachPoint", READ),
    ("listGateways", READ),
    ("getGateway", READ),
    ("joinGateway", Access::Join),
    ("issueJoinToken", ADMIN),
    ("watchGatewayConfiguration", Access::OwnGateway),
    ("reportObservations", Access::OwnGateway),
    ("putKernelLanes", Access::OwnGateway),
    ("listTokens", ADMIN),
    ("issueToken", ADMIN),
    ("deleteToken", ADMIN),
    ("listIssues", READ),
    ("getIssue", READ),
    ("acknowledgeIssue", ADMIN),
    ("resolveIssue", OPERATE),
    ("listEvents", READ),
    ("watchEvents", READ),
    ("getMetrics", READ),
    ("getHealth", Access::Open),
    ("getReadiness", Access::Open),
    ("getOpenApiDocument", Access::Open),
];

/// The access of an operation.
#[must_use]
pub fn access(operation: &str) -> Option<(&'static str, Access)> {
    POLICY.iter().find(|(name, _)| *name == operation).copied()
}
