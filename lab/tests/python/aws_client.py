"""Drives the AWS simulator with boto3, whose own parser decodes every answer."""

import os
import time

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

URL, GATEWAY, PORT = os.environ["LAB_URL"], os.environ["LAB_GATEWAY"], os.environ["LAB_PORT"]


def client(key=os.environ["LAB_KEY"], secret=os.environ["LAB_SECRET"], region="us-east-1"):
    return boto3.client(
        "directconnect",
        region_name=region,
        endpoint_url=URL,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}),
    )


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        got = error.response["Error"]["Code"]
        assert got == code, f"{got} instead of {code}: {error}"
        assert error.response["ResponseMetadata"]["RequestId"], error.response
        return error
    raise AssertionError(f"{call} took {arguments}")


def until(what, look):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen")


dx = client()

# The signature is checked for real.
refused("UnrecognizedClientException", client(key="AKIDNOBODY0000000000").describe_lags)
refused("InvalidSignatureException", client(secret="wrong").describe_lags)
refused("InvalidSignatureException", client(region="eu-west-1").describe_lags)

# What exists before.
lags = dx.describe_lags()["lags"]
assert len(lags) == 2 and len({lag["awsDeviceV2"] for lag in lags}) == 2, lags
assert all(lag["lagState"] == "down" for lag in lags), "no cable is plugged in"
assert lags[0]["connections"][0]["lagId"] == lags[0]["lagId"]
assert dx.describe_connections()["connections"][0]["lagId"] == lags[0]["lagId"]
[gateway] = dx.describe_direct_connect_gateways(directConnectGatewayId=GATEWAY)["directConnectGateways"]
assert gateway["amazonSideAsn"] == 64512
[association] = dx.describe_direct_connect_gateway_associations(directConnectGatewayId=GATEWAY)[
    "directConnectGatewayAssociations"
]
assert association["allowedPrefixesToDirectConnectGateway"] == [{"cidr": "10.0.0.0/16"}]
strangers = dx.describe_virtual_interfaces()["virtualInterfaces"]
assert len(strangers) == 3 and any(v["virtualInterfaceName"].startswith("tl-") for v in strangers)

# A whole life.
new = {
    "virtualInterfaceName": "from-boto3",
    "vlan": 1100,
    "asn": 65010,
    "authKey": "s3cretKey",
    "amazonAddress": "169.254.100.1/29",
    "customerAddress": "169.254.100.2/29",
    "directConnectGatewayId": GATEWAY,
    "tags": [{"key": "tieline:installation", "value": "lab"}],
}
vif = dx.create_private_virtual_interface(connectionId=PORT, newPrivateVirtualInterface=new)
vif_id = vif["virtualInterfaceId"]
assert vif["virtualInterfaceState"] == "pending" and vif["asnLong"] == 65010 and vif["mtu"] == 1500
assert vif["bgpPeers"][0]["bgpStatus"] == "down" and vif["authKey"] == "s3cretKey"
refused(
    "DirectConnectClientException",
    dx.create_private_virtual_interface,
    connectionId=PORT,
    newPrivateVirtualInterface=dict(new, virtualInterfaceName="same-vlan"),
)
[attachment] = dx.describe_direct_connect_gateway_attachments(virtualInterfaceId=vif_id)["directConnectGatewayAttachments"]
assert attachment["attachmentState"] == "attaching", attachment
arn = f"arn:aws:directconnect:us-east-1:123456789012:dxvif/{vif_id}"
dx.tag_resource(resourceArn=arn, tags=[{"key": "more", "value": "x"}])
assert len(dx.describe_tags(resourceArns=[arn])["resourceTags"][0]["tags"]) == 2
dx.untag_resource(resourceArn=arn, tagKeys=["more"])
assert dx.update_virtual_interface_attributes(virtualInterfaceId=vif_id, mtu=8500)["mtu"] == 8500
grown = dx.create_bgp_peer(virtualInterfaceId=vif_id, newBGPPeer={"asn": 65010, "addressFamily": "ipv6"})
peer = grown["virtualInterface"]["bgpPeers"][1]
dx.delete_bgp_peer(virtualInterfaceId=vif_id, bgpPeerId=peer["bgpPeerId"])
assert dx.list_virtual_interface_routes(virtualInterfaceId=vif_id)["routes"] == []

# Errors of the modelled kinds.
refused("DirectConnectClientException", dx.describe_connections, connectionId="dxcon-nowhere0")
refused("DirectConnectClientException", dx.delete_virtual_interface, virtualInterfaceId="dxvif-nowhere0")
twice = [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]
error = refused("DuplicateTagKeysException", dx.tag_resource, resourceArn=arn, tags=twice)
assert isinstance(error, dx.exceptions.DuplicateTagKeysException)
refused("UnknownOperationException", dx.describe_locations)

# Pages.
seen, token = [], None
while True:
    page = dx.describe_virtual_interfaces(maxResults=1, **({"nextToken": token} if token else {}))
    seen += [v["virtualInterfaceId"] for v in page["virtualInterfaces"]]
    token = page.get("nextToken")
    if not token:
        break
assert len(seen) == 4 and len(set(seen)) == 4, seen

# The end.
assert dx.delete_virtual_interface(virtualInterfaceId=vif_id)["virtualInterfaceState"] == "deleting"


def tombstone():
    [found] = dx.describe_virtual_interfaces(virtualInterfaceId=vif_id)["virtualInterfaces"]
    return found["virtualInterfaceState"] == "deleted"


until("deleted", tombstone)
print("boto3: everything holds")
