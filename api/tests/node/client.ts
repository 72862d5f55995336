// Drives a whole connection through a client that is generated from the published document, over mutual TLS, and asserts what
// a peer may rely upon. Arguments: address, CA, certificate, key, activation key.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import createClient from "openapi-fetch";
import { Agent, fetch as undiciFetch } from "undici";
import type { components, paths } from "./api.js";

type Schemas = components["schemas"];

const [url, ca, cert, key, encodedKey] = process.argv.slice(2);
assert(url && ca && cert && key && encodedKey, "URL CA CERTIFICATE KEY ACTIVATION-KEY");

const dispatcher = new Agent({
  connect: { ca: readFileSync(ca), cert: readFileSync(cert), key: readFileSync(key), minVersion: "TLSv1.3" },
});
const client = createClient<paths>({
  baseUrl: url,
  // The generated client makes a Request; undici's own fetch is what takes a client certificate.
  fetch: async (request: Request) => {
    const body = request.body === null ? undefined : await request.text();
    const { method, headers } = request;
    const answer = await undiciFetch(request.url, { method, headers: [...headers], body, dispatcher });
    return answer as unknown as Response;
  },
});

/**
 * What was answered, or an error that shows the refusal. Every response of the published document is `default`, which the
 * generator takes for an error: an answer has its type.
 */
async function of<T>(asked: Promise<{ data?: unknown; error?: T; response: Response }>): Promise<T> {
  const { data, error, response } = await asked;
  assert.equal(response.status, 200, JSON.stringify(error));
  return data as T;
}

/** The ids of a name. */
function ids(name: string | undefined): string[] {
  assert(name);
  return name.split("/").filter((_, at) => at % 2 === 1);
}

const provider = "south";
const providers = await of(client.GET("/providers"));
const names = providers.environments?.map((one) => one.name);
assert.deepEqual(names, ["providers/north", "providers/south"]);
await of(client.GET("/providers/{provider}", { params: { path: { provider } } }));

const environments = await of(client.GET("/providers/{provider}/environments", { params: { path: { provider } } }));
const [, environment] = ids(environments.environments?.[0]?.name);
assert(environment);
const here = { provider, environment };
const confirmed = await of(
  client.POST("/providers/{provider}/environments/{environment}/ConfirmActivationKey", {
    params: { path: here },
    body: { encodedKey },
  }),
);
assert.equal(confirmed.keyValid, true);

const interconnects = await of(
  client.GET("/providers/{provider}/environments/{environment}/interconnects", { params: { path: here } }),
);
const [, , interconnect] = ids(interconnects.interconnects?.[0]?.name);
assert(interconnect);
const on = { ...here, interconnect };
const at = "/providers/{provider}/environments/{environment}/interconnects/{interconnect}/connections" as const;
const connectionId = "generated-1";
const made = await of(
  client.POST(at, {
    params: { path: on, query: { connectionId } },
    body: { activationKey: encodedKey, bandwidthMbps: 5000 },
  }),
);
const name = `providers/${provider}/environments/${environment}/interconnects/${interconnect}/connections/${connectionId}`;
assert.equal(made.name, name);
const connection = { ...on, connection: connectionId };
const again = await client.POST(at, {
  params: { path: on, query: { connectionId } },
  body: { activationKey: encodedKey, bandwidthMbps: 1000 },
});
assert([400, 409].includes(again.response.status), "another body under an id that is taken");

const guidance = await of(
  client.POST(`${at}/{connection}/GenerateFeatureGuidance`, { params: { path: connection }, body: {} }),
);
const channels = guidance.featureGuidance ?? [];
assert.equal(channels.length, 4);

/** A proposal that follows the guidance of a channel. */
function proposal(one: Schemas["FeatureGuidance"]): Schemas["Feature"] {
  const within = one.l3BaseGuidance;
  const vlanId = within?.vlanRanges?.[0]?.start;
  const subnet = within?.ipv4SubnetGuidance?.[0];
  const ipv4Subnet = subnet?.preferredSubnet ?? subnet?.includeSubnet;
  const ours = within?.asnRanges?.[0]?.start;
  const mtuBytes = Math.max(...(within?.mtuRanges ?? []).map((range) => range.stop ?? 0));
  assert(one.channel && vlanId && ipv4Subnet && ours);
  const [address = "", whole] = ipv4Subnet.split("/");
  const lengths = within?.ipv4AllowedSubnetPrefixLengths ?? [];
  const length = lengths.includes(Number(whole)) ? Number(whole) : Math.max(...lengths);
  const host = (n: number) => address.replace(/\d+$/, (last) => String(Number(last) + n));
  return {
    channel: one.channel,
    featureConfig: {
      featureType: "FEATURE_TYPE_L3_BASE",
      l3BaseConfig: {
        ipv4Subnet: address,
        ipv4SubnetPrefixLength: length,
        mtuBytes,
        vlanId,
        md5BgpPassword: "generated-password",
        providerBgpConfigs: [
          { provider: "providers/north", asn: ours, hostIpv4: host(1) },
          { provider: "providers/south", asn: 64513, hostIpv4: host(2) },
        ],
      },
    },
  };
}

for (const [n, one] of channels.entries()) {
  const feature = await of(
    client.POST(`${at}/{connection}/features`, {
      params: { path: connection, query: { featureId: `f${n + 1}` } },
      body: proposal(one),
    }),
  );
  assert.equal(feature.provisioningState, "PROVISIONING_STATE_PENDING");
}
const features = await of(client.GET(`${at}/{connection}/features`, { params: { path: connection } }));
assert.equal(features.features?.length, 4);

await of(client.POST(`${at}/{connection}/NotifyConnectionStatus`, { params: { path: connection }, body: {} }));
const shown = await of(client.GET(`${at}/{connection}`, { params: { path: connection } }));
assert.deepEqual([shown.name, shown.bandwidthMbps], [name, 5000]);
assert.equal(shown.verificationState, "VERIFICATION_STATE_UNVERIFIED");

await of(client.DELETE(`${at}/{connection}`, { params: { path: connection } }));
const gone = await client.GET(`${at}/{connection}`, { params: { path: connection } });
assert.equal(gone.response.status, 404);
const left = await of(client.GET(at, { params: { path: on } }));
assert.deepEqual(left.connections ?? [], []);
await dispatcher.close();
console.log("driven");
