//! What exists before any connection, tokens, issues and events.

use reqwest::Method;

use super::{Client, ClientError, PageQuery, Watch};
use crate::{
    ids::{AccountId, AttachPointId, EnvironmentId, InterconnectId, IssueId, TokenId},
    v1::{
        Account, AccountList, AttachPoint, AttachPointList, Environment, EnvironmentList, Event, EventList,
        InterconnectList, Issue, IssueAnswer, IssueList, IssuedToken, ShownInterconnect, TokenList, TokenRequest,
    },
};

macro_rules! nouns {
    ($($path:literal: $list:ident -> $List:ty, $one:ident($id:ty) -> $One:ty;)*) => {
        impl Client {$(
            #[doc = concat!("A page of `", $path, "`.")]
            ///
            /// # Errors
            /// [`ClientError`].
            pub async fn $list(&self, page: &PageQuery) -> Result<$List, ClientError> {
                self.get($path, &page.pairs()).await
            }

            #[doc = concat!("One of `", $path, "`.")]
            ///
            /// # Errors
            /// [`ClientError`]; `not-found` if it is not there or not visible.
            pub async fn $one(&self, id: &$id) -> Result<$One, ClientError> {
                self.get(&format!(concat!($path, "/{}"), id), &[]).await
            }
        )*}
    };
}

nouns! {
    "/v1/accounts": accounts -> AccountList, account(AccountId) -> Account;
    "/v1/environments": environments -> EnvironmentList, environment(EnvironmentId) -> Environment;
    "/v1/interconnects": interconnects -> InterconnectList, interconnect(InterconnectId) -> ShownInterconnect;
    "/v1/attachPoints": attach_points -> AttachPointList, attach_point(AttachPointId) -> AttachPoint;
    "/v1/issues": issues -> IssueList, issue(IssueId) -> Issue;
}

impl Client {
    /// A page of tokens, without their secrets.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn tokens(&self, page: &PageQuery) -> Result<TokenList, ClientError> {
        self.get("/v1/tokens", &page.pairs()).await
    }

    /// Tells what became of a create without answer, where an issue asks for it.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` where the issue does not ask this, or not any more.
    pub async fn resolve_issue(&self, id: IssueId, answer: &IssueAnswer) -> Result<Issue, ClientError> {
        self.write(Method::POST, &format!("/v1/issues/{id}:resolve"), Some(answer)).await?.json()
    }

    /// Issues a token. Its secret is shown this once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn issue_token(&self, request: &TokenRequest) -> Result<IssuedToken, ClientError> {
        self.write(Method::POST, "/v1/tokens", Some(request)).await?.json()
    }

    /// Ends a token.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn revoke_token(&self, id: TokenId) -> Result<(), ClientError> {
        self.write::<()>(Method::DELETE, &format!("/v1/tokens/{id}"), None).await.map(drop)
    }

    /// Says that what an account lacks is meant to be gone: ends the issue that holds creates in it.
    ///
    /// # Errors
    /// [`ClientError`]; `conflict` if the issue ends by itself or has ended.
    pub async fn acknowledge_issue(&self, id: IssueId) -> Result<Issue, ClientError> {
        self.write::<()>(Method::POST, &format!("/v1/issues/{id}:acknowledge"), None).await?.json()
    }

    /// Events after a cursor, oldest first, at most `size`; from the oldest that is kept if there is no cursor.
    ///
    /// # Errors
    /// [`ClientError`]; `gone` if the cursor is older than what is kept.
    pub async fn events(&self, since: Option<&str>, size: Option<u32>) -> Result<EventList, ClientError> {
        let since = since.map(|since| ("since", since.to_owned()));
        let size = size.map(|size| ("pageSize", size.to_string()));
        let query: Vec<_> = since.into_iter().chain(size).collect();
        self.get("/v1/events", &query).await
    }

    /// Events as they happen, after a cursor; from now on if there is none. A broken stream is taken up where it stopped.
    #[must_use]
    pub fn watch_events(&self, since: Option<&str>) -> Watch<Event> {
        Watch::new(self.clone(), "/v1/events".to_owned(), since.map(ToOwned::to_owned))
    }
}
