//! What goes into the store and comes out of it.

mod accounts;
mod allocations;
mod claims;
mod connections;
mod events;
mod gateways;
mod issues;
mod ledger;
mod plans;
mod principals;
mod reports;
mod request;
mod retention;

pub use accounts::{Acceptance, AccountRound, AccountWatch, Expected, Sighting, Watch};
pub use allocations::{Allocation, Holding, SealedSecret};
pub use claims::{Claim, EngineWrite, SharedLease, Workpiece};
pub use connections::{
    ChangeTo, ConnectionChange, ConnectionFilter, ConnectionRecord, EngineStatus, NewConnection, SharedLink, Standing,
    StatusReason,
};
pub use events::NewEvent;
pub use gateways::{GatewayInputs, NewGateway, NewJoinToken, TunnelKey, TunnelKeyChange, TunnelKeyDue};
pub use issues::IssueAnswered;
pub use ledger::LedgerFacts;
pub use plans::NewPlan;
pub use principals::{NewToken, StoredPrincipal};
pub use reports::{KeptCondition, ReportEffects, Reported};
pub use request::{Audit, IdempotencyKey, Page, SavedAnswer};
pub use retention::HousekeepingLimits;
