package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/rollout"
)

// The traffic drivers.
const (
	DriverRouter     = "router"
	DriverIstio      = "istio"
	DriverGatewayAPI = "gateway-api"
	DriverFlagd      = "flagd"
	DriverWebhook    = "webhook"
)

var drivers = []string{DriverRouter, DriverIstio, DriverGatewayAPI, DriverFlagd, DriverWebhook}

// The kinds of objects that hold weights.
const (
	KindVirtualService = "VirtualService"
	KindHTTPRoute      = "HTTPRoute"
	KindGRPCRoute      = "GRPCRoute"
)

// kindsOfDriver are the kinds of objects that a driver sets; the first is the usual one. A driver that is not here has no such objects.
var kindsOfDriver = map[string][]string{
	DriverIstio:      {KindVirtualService},
	DriverGatewayAPI: {KindHTTPRoute, KindGRPCRoute},
}

// stepOfDriver is the least step of a weight where it is not a basis point.
var stepOfDriver = map[string]rollout.Weight{DriverIstio: rollout.FullWeight / 100}

// TrafficTarget is a data plane that rollouts may name.
type TrafficTarget struct {
	Driver      string        `yaml:"driver"`       // router | istio | gateway-api | flagd | webhook
	Gateways    []string      `yaml:"gateways"`     // router: the admin API's URL of every replica
	GatewaysDNS string        `yaml:"gateways_dns"` // router, instead: one URL whose host has the addresses of all replicas
	TLS         *ClientTLS    `yaml:"tls"`          // router, webhook: of https addresses; nil: the system's authorities
	Token       Secret        `yaml:"token"`        // router: of the admin API
	Timeout     time.Duration `yaml:"timeout"`      // of one call; 0: the driver's own

	Kubeconfig Path     `yaml:"kubeconfig"` // of Kubernetes; empty: the cluster that the worker runs in
	Context    string   `yaml:"context"`    // of the kubeconfig; empty: its current one
	Namespaces []string `yaml:"namespaces"` // that hold routes, for the sweep and the guard; empty: all

	File      Path    `yaml:"file"`       // flagd: of its flags, on this machine
	ConfigMap *MapKey `yaml:"config_map"` // flagd, instead: in Kubernetes

	URL     string            `yaml:"url"`     // webhook: of the receiver; its paths are in docs/webhook.md
	Secret  Secret            `yaml:"secret"`  // webhook: signs what is sent
	Headers map[string]string `yaml:"headers"` // webhook: sent along; never secrets
}

// MapKey is a key of a ConfigMap of Kubernetes.
type MapKey struct {
	Namespace string `yaml:"namespace"`
	Name      string `yaml:"name"`
	Key       string `yaml:"key"`
}

// field is a setting of a traffic target, and which drivers it is for.
type field struct {
	name string
	set  bool
	only []string
}

func (t TrafficTarget) check(r report) {
	checkDriver(t.Driver, "driver", r)
	checkBetween(t.Timeout, 0, callTimeout, "timeout", r)
	if !slices.Contains(drivers, t.Driver) {
		return
	}
	onKubernetes := []string{DriverIstio, DriverGatewayAPI, DriverFlagd}
	for _, f := range []field{
		{"gateways", len(t.Gateways) > 0, []string{DriverRouter}},
		{"gateways_dns", t.GatewaysDNS != "", []string{DriverRouter}},
		{"token_env", t.Token.File != "" || t.Token.Env != "", []string{DriverRouter}},
		{"tls", t.TLS != nil, []string{DriverRouter, DriverWebhook}},
		{"kubeconfig", t.Kubeconfig != "", onKubernetes},
		{"context", t.Context != "", onKubernetes},
		{"namespaces", len(t.Namespaces) > 0, onKubernetes[:2]},
		{"file", t.File != "", []string{DriverFlagd}},
		{"config_map", t.ConfigMap != nil, []string{DriverFlagd}},
		{"url", t.URL != "", []string{DriverWebhook}},
		{"secret_env", t.Secret.File != "" || t.Secret.Env != "", []string{DriverWebhook}},
		{"headers", len(t.Headers) > 0, []string{DriverWebhook}},
	} {
		if f.set && !slices.Contains(f.only, t.Driver) {
			r(f.name, "is not for the driver %s, it is for %s", t.Driver, oneOf(f.only...))
		}
	}
	switch t.Driver {
	case DriverRouter:
		checkGateways(t.Gateways, t.GatewaysDNS, r)
		t.TLS.check(r, slices.Concat(t.Gateways, []string{t.GatewaysDNS})...)
	case DriverFlagd:
		t.checkFlagd(r)
	case DriverWebhook:
		checkWebhook(WebhookTarget{URL: t.URL, Secret: t.Secret, Headers: t.Headers}, r)
		t.TLS.check(r, t.URL)
		if t.Secret.File == "" && t.Secret.Env == "" {
			r("secret_env", "is missing, want secret_file or secret_env: the receiver tells by it that a route is the worker's")
		}
	}
	for _, name := range t.Namespaces {
		checkKubernetesName(name, "namespaces", r)
	}
}

func (t TrafficTarget) checkFlagd(r report) {
	switch {
	case (t.File == "") == (t.ConfigMap == nil):
		r("file", "want exactly one of file: /etc/flagd/flags.json and config_map: {namespace: agents, name: flags, key: flags.json}")
	case t.ConfigMap != nil:
		checkKubernetesName(t.ConfigMap.Namespace, "config_map.namespace", r)
		checkKubernetesName(t.ConfigMap.Name, "config_map.name", r)
		if !configMapKey.MatchString(t.ConfigMap.Key) {
			r("config_map.key", "%s, want a key such as flags.json", quote(t.ConfigMap.Key))
		}
	case t.Kubeconfig != "" || t.Context != "":
		r("kubeconfig", "is for config_map, want it without file")
	}
}

var (
	kubernetesName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
	configMapKey   = regexp.MustCompile(`^[A-Za-z0-9._-]{1,253}$`)
	// ruleName is what Istio and the Gateway API take for one, without what would have to be escaped anywhere.
	ruleName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)
)

func checkKubernetesName(name, path string, r report) {
	switch {
	case name == "":
		r(path, "is missing, want a name of Kubernetes, such as agents")
	case !kubernetesName.MatchString(name):
		r(path, "%s, want a name of Kubernetes: lower-case letters, digits, - and .", quote(name))
	}
}

func checkDriver(driver, path string, r report) { checkOneOf(driver, path, r, drivers...) }

// checkPlane checks what a rollout says about a data plane that is not Aviary's own router.
func checkPlane(spec rollout.Spec, r report) {
	t := spec.Traffic
	if !slices.Contains(drivers, t.Driver) || t.Driver == DriverRouter {
		if t.Driver == DriverRouter && t.Object != nil {
			r("traffic.object", "is not for the driver router, which goes by the agent's name")
		}
		return
	}
	if t.OnRollback != rollout.Evict {
		r("traffic.on_rollback", "%s takes a gateway that knows conversations, want evict with the driver %s", quote(string(t.OnRollback)), t.Driver)
	}
	if spec.Metrics.Provider == ProviderRouter {
		r("metrics.provider", "router counts what Aviary's gateways pass on, and with the driver %s they pass on nothing; want prometheus or another source", t.Driver)
	}
	checkObject(t, r.under("traffic.object"))
	for i, stage := range spec.Stages[:min(len(spec.Stages), maxStages)] {
		at := r.under(fmt.Sprintf("canary_stages[%d]", i))
		if step := stepOfDriver[t.Driver]; step > 0 && stage.Weight%step != 0 {
			at("weight", "%s is too fine for %s, want whole percent", stage.Weight, t.Driver)
		}
		if stage.Mirror > 0 {
			at("mirror", "is the driver router's, want a weight with the driver %s", t.Driver)
		}
	}
}

func checkObject(t rollout.Traffic, r report) {
	kinds, o := kindsOfDriver[t.Driver], t.Object
	switch {
	case t.Driver == DriverFlagd:
		if o == nil {
			return
		}
		if *o != (rollout.Object{Name: o.Name}) {
			r("", "has more than a name, want the key of the flag only, such as {name: support-agent}")
		}
		if !ruleName.MatchString(o.Name) {
			r("name", "%s, want the key of a flag, such as support-agent", quote(o.Name))
		}
		return
	case len(kinds) == 0:
		if o != nil {
			r("", "is not for the driver %s, which goes by the agent's name", t.Driver)
		}
		return
	case o == nil:
		r("", "is missing, want where the weights are: {namespace: agents, name: support-agent, rule: weighted, stable: {host: support-agent-a}, canary: {host: support-agent-b}}")
		return
	}
	if o.Kind != "" && !slices.Contains(kinds, o.Kind) {
		r("kind", "%s, want %s", quote(o.Kind), oneOf(kinds...))
	}
	checkKubernetesName(o.Namespace, "namespace", r)
	checkKubernetesName(o.Name, "name", r)
	switch {
	case o.Rule == "":
		r("rule", "is missing, want the name of the rule in %s that holds the weights", quote(o.Name))
	case !ruleName.MatchString(o.Rule):
		r("rule", "%s, want letters, digits, - . and _", quote(o.Rule))
	}
	checkDestination(o.Stable, t.Driver, "stable", r)
	checkDestination(o.Canary, t.Driver, "canary", r)
	if o.Stable == o.Canary && o.Stable.Host != "" {
		r("canary", "%s is where stable runs too, want another one", quote(o.Canary.String()))
	}
}

func checkDestination(d rollout.Destination, driver, path string, r report) {
	switch {
	case d.Host == "":
		r(path, "is missing, want where it runs, as the rule names it, such as {host: support-agent-a}")
	case !kubernetesName.MatchString(strings.ToLower(d.Host)):
		r(path+".host", "%s, want the name of a host, such as support-agent-a", quote(d.Host))
	}
	switch {
	case d.Subset != "" && driver != DriverIstio:
		r(path+".subset", "is Istio's, want only a host with the driver %s", driver)
	case d.Subset != "" && !ruleName.MatchString(d.Subset):
		r(path+".subset", "%s, want the name of a subset, such as v41", quote(d.Subset))
	}
}
