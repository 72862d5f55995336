"""Drives the Google simulator with google-cloud-compute, which decodes every answer into its own messages."""

import os

import google.auth.exceptions
import google.oauth2.credentials
from google.api_core import exceptions
from google.cloud import compute_v1

PROJECT, REGION = os.environ["LAB_PROJECT"], os.environ["LAB_REGION"]
ROUTER, INTERCONNECT = os.environ["LAB_ROUTER"], os.environ["LAB_INTERCONNECT"]
PLACE = {"project": PROJECT, "region": REGION}


def client(kind, token=os.environ["LAB_TOKEN"]):
    credentials = google.oauth2.credentials.Credentials(token=token)
    return kind(credentials=credentials, client_options={"api_endpoint": os.environ["LAB_URL"]}, transport="rest")


def refused(kind, reason, call, **arguments):
    try:
        call(**arguments)
    except kind as error:
        assert reason in str([dict(e) for e in error.errors]), error.errors
        return
    raise AssertionError(f"{call} took {arguments}")


attachments = client(compute_v1.InterconnectAttachmentsClient)
interconnects = client(compute_v1.InterconnectsClient)
routers = client(compute_v1.RoutersClient)
operations = client(compute_v1.RegionOperationsClient)



def finish(operation):
    """Waits for an operation; the client's own result() always polls Google's public endpoint, whatever `api_endpoint` says."""
    done = operations.wait(operation=operation.name, **PLACE)
    assert done.status == compute_v1.Operation.Status.DONE and not done.error.errors, done


# A 401 makes the client refresh its token, which a bare one cannot be.
try:
    client(compute_v1.RoutersClient, token="wrong").get(router=ROUTER, **PLACE)
    raise AssertionError("a wrong token was taken")
except google.auth.exceptions.RefreshError:
    pass

# What exists before.
found = list(interconnects.list(project=PROJECT))
assert len(found) == 2 and len({i.location for i in found}) == 2, found
assert interconnects.get(project=PROJECT, interconnect=INTERCONNECT).operational_status == "OS_UNPROVISIONED"
router = routers.get(router=ROUTER, **PLACE)
assert router.bgp.asn == 65010 and len(router.bgp_peers) == 3 and len(router.md5_authentication_keys) == 3
assert not any(key.key for key in router.md5_authentication_keys), "keys are never shown"
assert [r.name for r in routers.list(**PLACE)] == [ROUTER]

# An attachment.
wanted = compute_v1.InterconnectAttachment(
    name="from-python",
    interconnect=f"projects/{PROJECT}/global/interconnects/{INTERCONNECT}",
    router=f"projects/{PROJECT}/regions/{REGION}/routers/{ROUTER}",
    type_="DEDICATED",
    bandwidth="BPS_1G",
    mtu=1500,
    vlan_tag8021q=1100,
    candidate_subnets=["169.254.100.0/24"],
    description="made by google-cloud-compute",
)
finish(attachments.insert(interconnect_attachment_resource=wanted, **PLACE))
attachment = attachments.get(interconnect_attachment="from-python", **PLACE)
assert attachment.state == "ACTIVE" and attachment.vlan_tag8021q == 1100 and attachment.mtu == 1500, attachment
assert attachment.cloud_router_ip_address.startswith("169.254.100.") and attachment.cloud_router_ip_address.endswith("/29")
refused(exceptions.Conflict, "alreadyExists", attachments.insert, interconnect_attachment_resource=wanted, **PLACE)
taken = compute_v1.InterconnectAttachment(wanted, name="same-vlan")
refused(exceptions.BadRequest, "invalid", attachments.insert, interconnect_attachment_resource=taken, **PLACE)
odd = compute_v1.InterconnectAttachment(wanted, name="odd", vlan_tag8021q=1101, mtu=9000)
refused(exceptions.BadRequest, "invalid", attachments.insert, interconnect_attachment_resource=odd, **PLACE)
gone = {"interconnect_attachment": "nowhere", **PLACE}
refused(exceptions.NotFound, "notFound", attachments.get, **gone)

# Pages and filters: the client follows nextPageToken by itself.
listed = compute_v1.ListInterconnectAttachmentsRequest(max_results=1, **PLACE)
assert len([a.name for a in attachments.list(request=listed)]) == 4
only = compute_v1.ListInterconnectAttachmentsRequest(filter='name = "from-python"', **PLACE)
assert [a.name for a in attachments.list(request=only)] == ["from-python"]

# Read, modify, write: everything of the strangers goes back as it came, their keys without values.
router.interfaces.append(
    compute_v1.RouterInterface(
        name="from-python",
        ip_range=attachment.cloud_router_ip_address,
        linked_interconnect_attachment=attachment.self_link,
    )
)
router.bgp_peers.append(
    compute_v1.RouterBgpPeer(
        name="from-python",
        interface_name="from-python",
        peer_ip_address=attachment.customer_router_ip_address.split("/")[0],
        peer_asn=64512,
        md5_authentication_key_name="from-python",
        bfd=compute_v1.RouterBgpPeerBfd(
            session_initialization_mode="ACTIVE", min_transmit_interval=1000, min_receive_interval=1000, multiplier=5
        ),
    )
)
router.md5_authentication_keys.append(compute_v1.RouterMd5AuthenticationKey(name="from-python", key="s3cretKey"))
first = routers.patch(router=ROUTER, router_resource=router, **PLACE)
refused(exceptions.BadRequest, "resourceNotReady", routers.patch, router=ROUTER, router_resource=router, **PLACE)
finish(first)
assert operations.get(operation=first.name, **PLACE).status == compute_v1.Operation.Status.DONE
assert operations.wait(operation=first.name, **PLACE).status == compute_v1.Operation.Status.DONE
now = routers.get(router=ROUTER, **PLACE)
assert len(now.bgp_peers) == 4 and now.bgp_peers[3].ip_address == attachment.cloud_router_ip_address.split("/")[0]
status = routers.get_router_status(router=ROUTER, **PLACE).result.bgp_peer_status
[peer] = [p for p in status if p.name == "from-python"]
assert peer.status == "DOWN" and peer.md5_auth_enabled and peer.bfd_status.local_state == "DOWN", peer
dangling = compute_v1.Router(
    interfaces=list(now.interfaces)[:3],
    bgp_peers=list(now.bgp_peers),
    md5_authentication_keys=list(now.md5_authentication_keys),
)
refused(exceptions.BadRequest, "invalid", routers.patch, router=ROUTER, router_resource=dangling, **PLACE)
attached = {"interconnect_attachment": "from-python", **PLACE}
refused(exceptions.BadRequest, "resourceInUseByAnotherResource", attachments.delete, **attached)

# Back again.
back = compute_v1.Router(
    interfaces=list(now.interfaces)[:3],
    bgp_peers=list(now.bgp_peers)[:3],
    md5_authentication_keys=list(now.md5_authentication_keys)[:3],
)
finish(routers.patch(router=ROUTER, router_resource=back, **PLACE))
change = compute_v1.InterconnectAttachment(description="changed")
finish(attachments.patch(interconnect_attachment_resource=change, **attached))
assert attachments.get(**attached).description == "changed"
finish(attachments.delete(**attached))
refused(exceptions.NotFound, "notFound", attachments.get, **attached)
print("google-cloud-compute: everything holds")
