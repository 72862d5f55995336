//! The operations that read.

use ipnet::Ipv4Net;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Api,
    state::{Aws, Phase},
    views::Status,
    wire::AwsError,
};
use crate::clouds::{
    network::SessionStatus,
    page::{key, page},
    sim::View,
};

/// The largest page (`MaxResultSetSize`: "If MaxResults is given a value larger than 100, only 100 results are returned").
const PAGE: i64 = 100;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Read {
    lag_id: Option<String>,
    connection_id: Option<String>,
    virtual_interface_id: Option<String>,
    direct_connect_gateway_id: Option<String>,
    association_id: Option<String>,
    associated_gateway_id: Option<String>,
    virtual_gateway_id: Option<String>,
    filters: Option<RouteFilters>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RouteFilters {
    route_direction: Option<String>,
    address_family: Option<String>,
    cidrs: Option<Vec<String>>,
    as_path: Option<Vec<u32>>,
}

impl Read {
    fn answer(&self, list: &str, items: Vec<(String, Value)>) -> Result<Value, AwsError> {
        let size = match self.max_results {
            Some(n) if n < 1 => return Err(AwsError::client("maxResults must be at least 1.")),
            n => usize::try_from(n.unwrap_or(PAGE).min(PAGE)).unwrap_or(1),
        };
        let (items, next) = page(list, items, size, self.next_token.as_deref())
            .map_err(|_| AwsError::client("The nextToken is not valid for this request."))?;
        let mut body = json!({ list: items });
        if let Some(next) = next {
            body["nextToken"] = json!(next);
        }
        Ok(body)
    }
}

fn numbered<T>(items: impl IntoIterator<Item = T>) -> Vec<(String, T)> {
    (1..).map(key).zip(items).collect()
}

impl Api {
    async fn lit(&self) -> std::collections::BTreeSet<String> {
        let ports: Vec<String> = self.sim.read(View::One, |aws| aws.lags.iter().map(|lag| lag.id.clone()).collect());
        let mut lit = std::collections::BTreeSet::new();
        for port in ports {
            if self.sim.link_up(&port).await {
                lit.insert(port);
            }
        }
        lit
    }

    pub(super) async fn describe_lags(&self, read: Read) -> Result<Value, AwsError> {
        let lit = self.lit().await;
        let shown = self.sim.read(View::List, |aws| {
            if let Some(id) = read.lag_id.as_deref().filter(|id| aws.lag(id).is_none()) {
                return Err(AwsError::client(format!("Could not find Lag with ID {id}")));
            }
            let wanted = aws.lags.iter().filter(|lag| read.lag_id.as_ref().is_none_or(|id| *id == lag.id));
            Ok(numbered(wanted.map(|lag| aws.show_lag(lag, lit.contains(&lag.id)))))
        })?;
        read.answer("lags", shown)
    }

    pub(super) async fn describe_connections(&self, read: Read) -> Result<Value, AwsError> {
        let lit = self.lit().await;
        let shown = self.sim.read(View::List, |aws| {
            let all = aws.lags.iter().flat_map(|lag| Aws::member_ids(lag).into_iter().map(move |id| (lag, id)));
            let wanted: Vec<Value> = all
                .filter(|(_, id)| read.connection_id.as_ref().is_none_or(|wanted| wanted == id))
                .map(|(lag, id)| aws.show_member(lag, &id, lit.contains(&lag.id)))
                .collect();
            match &read.connection_id {
                Some(id) if wanted.is_empty() => {
                    Err(AwsError::client(format!("Could not find Connection with ID {id}")))
                }
                _ => Ok(numbered(wanted)),
            }
        })?;
        read.answer("connections", shown)
    }

    pub(super) fn describe_gateways(&self, read: &Read) -> Result<Value, AwsError> {
        let wanted = read.direct_connect_gateway_id.as_ref();
        let shown = self.sim.read(View::List, |aws| {
            let all = aws.gateways.iter().filter(|gateway| wanted.is_none_or(|id| *id == gateway.id));
            numbered(all.map(|gateway| aws.show_gateway(gateway)))
        });
        read.answer("directConnectGateways", shown)
    }

    pub(super) fn describe_associations(&self, read: &Read) -> Result<Value, AwsError> {
        let associated = read.associated_gateway_id.as_ref().or(read.virtual_gateway_id.as_ref());
        if read.direct_connect_gateway_id.is_none() && associated.is_none() && read.association_id.is_none() {
            return Err(AwsError::client(
                "Specify a Direct Connect gateway, an associated gateway, or an association ID.",
            ));
        }
        let shown = self.sim.read(View::List, |aws| {
            let all = aws.gateways.iter().filter(|g| {
                read.direct_connect_gateway_id.as_ref().is_none_or(|id| *id == g.id)
                    && associated.is_none_or(|id| *id == g.virtual_gateway_id)
                    && read.association_id.as_ref().is_none_or(|id| *id == g.association_id)
            });
            numbered(all.map(|gateway| aws.show_association(gateway)))
        });
        read.answer("directConnectGatewayAssociations", shown)
    }

    pub(super) fn describe_attachments(&self, read: &Read) -> Result<Value, AwsError> {
        if read.direct_connect_gateway_id.is_none() && read.virtual_interface_id.is_none() {
            return Err(AwsError::client("Specify a Direct Connect gateway, a virtual interface, or both."));
        }
        let shown = self.sim.read(View::List, |aws| {
            let all = aws.interfaces.iter().filter(|vif| {
                vif.phase != Phase::Deleted
                    && read.direct_connect_gateway_id.as_ref().is_none_or(|id| *id == vif.gateway_id)
                    && read.virtual_interface_id.as_ref().is_none_or(|id| *id == vif.id)
            });
            all.map(|vif| (key(vif.n), aws.show_attachment(vif))).collect()
        });
        read.answer("directConnectGatewayAttachments", shown)
    }

    pub(super) async fn describe_virtual_interfaces(&self, read: Read) -> Result<Value, AwsError> {
        let status = self.sim.status().await;
        let view = if read.virtual_interface_id.is_some() { View::One } else { View::List };
        let shown = self.sim.read(view, |aws| {
            let all = aws.interfaces.iter().filter(|vif| {
                read.virtual_interface_id.as_ref().is_none_or(|id| *id == vif.id)
                    && read.connection_id.as_ref().is_none_or(|id| *id == vif.connection_id)
            });
            all.map(|vif| (key(vif.n), aws.show_interface(vif, &status))).collect()
        });
        read.answer("virtualInterfaces", shown)
    }

    pub(super) async fn list_routes(&self, read: Read) -> Result<Value, AwsError> {
        let id = read
            .virtual_interface_id
            .as_deref()
            .ok_or_else(|| AwsError::client("Specify the ID of a virtual interface."))?;
        let (device, sessions) = self.sim.read(View::One, |aws| {
            let vif = aws.interface(id).filter(|vif| vif.is_live()).ok_or_else(|| no_interface(id))?;
            let device = aws.lag(&vif.connection_id).map(|lag| lag.device.clone()).unwrap_or_default();
            Ok((device, vif.bgp_peers.iter().map(|peer| vif.session_id(peer)).collect::<Vec<_>>()))
        })?;
        let status: Status = self.sim.status().await;
        let Some(status) = status else {
            return Err(AwsError::new(500, "DirectConnectServerException", "The routes cannot be read at the moment."));
        };
        let filters = read.filters.as_ref();
        let mut routes = Vec::new();
        for session in sessions.iter().filter_map(|id| status.get(id)) {
            routes.extend(routes_of(session, &device).into_iter().filter(|r| filters.is_none_or(|f| f.passes(r))));
        }
        let mut body = read.answer("routes", numbered(routes))?;
        body["virtualInterfaceId"] = json!(id);
        Ok(body)
    }
}

pub(super) fn no_interface(id: &str) -> AwsError {
    AwsError::client(format!("Virtual Interface [{id}] does not exist"))
}

fn routes_of(session: &SessionStatus, device: &str) -> Vec<Value> {
    let route = |cidr: &Ipv4Net, direction: &str, path: &[u32]| {
        let mut route = json!({
            "cidr": cidr, "routeDirection": direction, "addressFamily": "ipv4",
            "asPath": [{ "pathType": "seq", "path": path }], "communities": [], "awsLogicalDeviceId": device,
        });
        if let Some(since) = session.established_since {
            route["routeInstalledAt"] = json!(since.as_second());
        }
        route
    };
    let accepted = session.learned.iter().map(|r| route(&r.prefix, "accepted", &r.as_path));
    accepted.chain(session.advertised.iter().map(|prefix| route(prefix, "advertised", &[]))).collect()
}

impl RouteFilters {
    fn passes(&self, route: &Value) -> bool {
        let is = |wanted: &Option<String>, key: &str| wanted.as_ref().is_none_or(|w| route[key] == json!(w));
        let path = &route["asPath"][0]["path"];
        is(&self.route_direction, "routeDirection")
            && is(&self.address_family, "addressFamily")
            && self.cidrs.as_ref().is_none_or(|all| all.iter().any(|cidr| route["cidr"] == json!(cidr)))
            && self.as_path.as_ref().is_none_or(|wanted| *path == json!(wanted))
    }
}
