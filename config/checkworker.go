package config

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/rollout"
)

// The log formats.
const (
	LogText = "text"
	LogJSON = "json"
)

var taskQueue = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,199}$`)

// check reports what is wrong with the settings.
func (w Worker) check(r report) {
	w.Temporal.check(r.under("temporal"))
	if !taskQueue.MatchString(w.TaskQueue) {
		r("task_queue", "%s, want a name of letters, digits and . _ / -, such as aviary", quote(w.TaskQueue))
	}
	checkListen(w.Listen, "listen", r)
	if len(w.Traffic) == 0 {
		r("traffic", "is missing, want at least one target, such as default: {driver: router, gateways: [http://127.0.0.1:9901], token_env: AVIARY_ADMIN_TOKEN}")
	}
	if len(w.Metrics) == 0 {
		r("metrics", "is missing, want at least one target, such as default: {provider: router, gateways: [http://127.0.0.1:9901], token_env: AVIARY_ADMIN_TOKEN}")
	}
	eachTarget(w.Traffic, "traffic", r, TrafficTarget.check)
	eachTarget(w.Metrics, "metrics", r, MetricsTarget.check)
	eachTarget(w.Notify, "notify", r, NotifyTarget.check)
	checkBetween(w.Sweep.Every, time.Second, 24*time.Hour, "sweep.every", r)
	checkBetween(w.GracefulStop, 0, 10*time.Minute, "graceful_stop", r)
	if w.Versioning != nil {
		if w.Versioning.Deployment == "" {
			r("versioning.deployment", "is missing, want the name of the deployment")
		}
		if w.Versioning.BuildID == "" {
			r("versioning.build_id", "is missing, want the id of this build")
		}
	}
	checkLog(w.Log, r.under("log"))
}

// eachTarget checks targets in the order of their names.
func eachTarget[T any](targets map[string]T, path string, r report, check func(T, report)) {
	for _, name := range slices.Sorted(maps.Keys(targets)) {
		p := child(path, name)
		if !rollout.ValidName(name) {
			r(p, "%s is not a name, want %s", quote(name), rollout.NamePattern)
		}
		check(targets[name], r.under(p))
	}
}

// checkBetween wants a duration within bounds.
func checkBetween(d, least, most time.Duration, path string, r report) {
	if d < least || d > most {
		r(path, "%s, want %s to %s", rollout.Duration(d), rollout.Duration(least), rollout.Duration(most))
	}
}

func (t Temporal) check(r report) {
	if t.Address != "" {
		if strings.Contains(t.Address, "://") {
			r("address", "a URL, want host:port such as 127.0.0.1:7233")
		} else {
			checkListen(t.Address, "address", r)
		}
	}
	if t.TLS != nil && (t.TLS.Cert == "") != (t.TLS.Key == "") {
		r("tls", "one of cert_file and key_file alone, want both or neither")
	}
}

// callTimeout bounds the timeout of one call to a target.
const callTimeout = 2 * time.Minute

func (t MetricsTarget) check(r report) {
	checkProvider(t.Provider, "provider", r)
	checkBetween(t.Timeout, 0, callTimeout, "timeout", r)
	checkBetween(t.Delay, 0, time.Hour, "delay", r)
	if !slices.Contains(providers, t.Provider) {
		return
	}
	for _, f := range []field{
		{"gateways", len(t.Gateways) > 0, []string{ProviderRouter}},
		{"gateways_dns", t.GatewaysDNS != "", []string{ProviderRouter}},
		{"address", t.Address != "", []string{ProviderPrometheus, ProviderHTTP}},
		{"tls", t.TLS != nil, []string{ProviderRouter, ProviderPrometheus, ProviderHTTP}},
		{"token_env", t.Token.File != "" || t.Token.Env != "", []string{ProviderRouter, ProviderPrometheus, ProviderHTTP}},
		{"user", t.User != "", []string{ProviderHTTP}},
		{"token_header", t.TokenHeader != "", []string{ProviderHTTP}},
		{"dsn_env", t.DSN.File != "" || t.DSN.Env != "", []string{ProviderSQL}},
		{"delay", t.Delay != 0, []string{ProviderHTTP, ProviderSQL}},
	} {
		if f.set && !slices.Contains(f.only, t.Provider) {
			r(f.name, "is not for the provider %s, it is for %s", t.Provider, oneOf(f.only...))
		}
	}
	switch t.Provider {
	case ProviderRouter:
		checkGateways(t.Gateways, t.GatewaysDNS, r)
	case ProviderPrometheus:
		checkAddress(t.Address, "Prometheus, such as http://127.0.0.1:9090", r)
	case ProviderHTTP:
		checkAddress(t.Address, "the API, such as https://api.example.com", r)
		switch {
		case t.TokenHeader != "" && t.User != "":
			r("token_header", "user is there too, want one of them")
		case t.TokenHeader != "" && !headerName.MatchString(t.TokenHeader):
			r("token_header", "%s is not the name of a header", quote(t.TokenHeader))
		}
	case ProviderSQL:
		if t.DSN.File == "" && t.DSN.Env == "" {
			r("dsn_env", "is missing, want dsn_file or dsn_env that holds postgres://user:password@host/database")
		}
	}
	t.TLS.check(r, slices.Concat(t.Gateways, []string{t.GatewaysDNS, t.Address})...)
}

func checkAddress(address, of string, r report) {
	if address == "" {
		r("address", "is missing, want the address of %s", of)
		return
	}
	checkURL(address, "address", r)
}

// check wants files that belong together, and addresses they are good for.
func (t *ClientTLS) check(r report, addresses ...string) {
	if t == nil {
		return
	}
	if (t.Cert == "") != (t.Key == "") {
		r("tls", "one of cert_file and key_file alone, want both or neither")
	}
	if slices.ContainsFunc(addresses, func(a string) bool { return a != "" && !strings.HasPrefix(a, "https://") }) {
		r("tls", "is for https, want all addresses to begin with https://")
	}
}

// checkGateways wants the admin API of every replica, each once, or a name that stands for all.
func checkGateways(gateways []string, name string, r report) {
	switch {
	case name != "" && len(gateways) > 0:
		r("gateways_dns", "gateways are listed too, want one of them")
	case name != "":
		checkURL(name, "gateways_dns", r)
		if u, err := url.Parse(name); err == nil && net.ParseIP(u.Hostname()) != nil {
			r("gateways_dns", "%s, want a name that has the addresses of all gateways; for an address there is gateways", quote(name))
		}
	case len(gateways) == 0:
		r("gateways", "is missing, want the address of every gateway's admin API, such as [http://127.0.0.1:9901], or gateways_dns")
	}
	for i, g := range gateways {
		path := fmt.Sprintf("gateways[%d]", i)
		checkURL(g, path, r)
		if first := slices.Index(gateways, g); first < i {
			r(path, "the same as gateways[%d], want every replica once", first)
		}
	}
}

func (t NotifyTarget) check(r report) {
	switch {
	case (t.Slack == nil) == (t.Webhook == nil):
		r("", "want exactly one of slack or webhook")
	case t.Slack != nil:
		if t.Slack.Token.File == "" && t.Slack.Token.Env == "" {
			r("slack.token_env", "is missing, want token_file or token_env of a bot token")
		}
		if t.Slack.APIURL != "" {
			checkURL(t.Slack.APIURL, "slack.api_url", r)
			if !strings.HasSuffix(t.Slack.APIURL, "/") {
				r("slack.api_url", "%s, want a slash at its end", quote(t.Slack.APIURL))
			}
		}
	case t.Webhook != nil:
		checkWebhook(*t.Webhook, r.under("webhook"))
	}
}

var headerName = regexp.MustCompile(`^[A-Za-z0-9!#$%&'*+.^_|~-]{1,100}$`)

func checkWebhook(t WebhookTarget, r report) {
	if t.URL == "" {
		r("url", "is missing, want an address such as https://hooks.example.com/aviary")
	} else {
		checkURL(t.URL, "url", r)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Headers)) {
		path := child("headers", name)
		switch {
		case !headerName.MatchString(name):
			r(path, "%s is not the name of a header", quote(name))
		case slices.Contains([]string{"authorization", "cookie", "proxy-authorization"}, strings.ToLower(name)):
			r(path, "holds a secret, want none in the file; the body is signed with secret_file or secret_env")
		case strings.ContainsAny(t.Headers[name], "\r\n\x00"):
			r(path, "has a line break, want one line")
		}
	}
}
