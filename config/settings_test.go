package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// environment is a Lookup of a few variables.
func environment(pairs ...string) Lookup {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func TestWorkerExample(t *testing.T) {
	t.Parallel()
	const file = "../examples/worker.yaml"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseWorker(file, data, environment("AVIARY_ADMIN_TOKEN", " hush\n"))
	if err != nil {
		t.Fatal(err)
	}
	token := Secret{Env: "AVIARY_ADMIN_TOKEN", value: "hush"}
	want := DefaultWorker()
	want.Temporal = Temporal{Address: "127.0.0.1:7233", Namespace: "default"}
	want.Traffic = map[string]TrafficTarget{"default": {Driver: "router", Gateways: []string{"http://127.0.0.1:9901"}, Token: token}}
	want.Metrics = map[string]MetricsTarget{
		"default": {Provider: "router", Gateways: []string{"http://127.0.0.1:9901"}, Token: token},
		"prom":    {Provider: "prometheus", Address: "http://127.0.0.1:9090", Timeout: 10 * time.Second},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Secret{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	_, err = ParseWorker(file, data, environment())
	if n := strings.Count(fmt.Sprint(err), "environment variable AVIARY_ADMIN_TOKEN is not set"); n != 2 {
		t.Errorf("without the variable: got %v, want it said twice", err)
	}
}

func TestGuardExample(t *testing.T) {
	t.Parallel()
	got, err := LoadGuard("../examples/guard.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultGuard()
	want.Traffic = map[string]TrafficTarget{
		"cluster": {Driver: DriverIstio, Namespaces: []string{"agents"}}, "routes": {Driver: DriverGatewayAPI, Namespaces: []string{"agents"}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Secret{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestWorkerWithEverything sets every key there is.
func TestWorkerWithEverything(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("from a file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "worker.yaml")
	text := `
temporal:
  address: temporal.example.com:7233
  namespace: agents.abc
  profile: production
  tls: {ca_file: ca.pem, cert_file: c.pem, key_file: /k.pem, server_name: t}
  api_key_file: token
task_queue: canaries
listen: ":0"
traffic: {eu: {driver: router, gateways: ["https://a", "https://b:1/x"], token_file: token, timeout: 3s, tls: {ca_file: gw.pem, cert_file: /c.pem, key_file: /k.pem}}, us: {driver: router, gateways_dns: "https://gateways.us:9901"}}
metrics: {eu: {provider: router, gateways: ["https://a"]}, us: {provider: router, gateways_dns: "https://gateways.us:9901"}}
notify:
  default: {slack: {token_env: SLACK, api_url: "https://slack.example.com/api/"}}
  ops: {webhook: {url: "https://hooks.example.com", secret_env: HOOK, headers: {X-Team: agents}}}
sweep: {every: 1m, disabled: true}
versioning: {deployment: aviary, build_id: "7"}
graceful_stop: 5s
log: {level: debug, format: json}
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := read(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseWorker(file, data, environment("SLACK", "xoxb", "HOOK", "sign"))
	if err != nil {
		t.Fatal(err)
	}
	fromFile := Secret{File: filepath.Join(dir, "token"), value: "from a file"}
	in := func(name string) Path { return Path(filepath.Join(dir, name)) }
	want := Worker{
		Temporal: Temporal{
			Address: "temporal.example.com:7233", Namespace: "agents.abc", Profile: "production", APIKey: fromFile,
			TLS: &TemporalTLS{CA: in("ca.pem"), Cert: in("c.pem"), Key: "/k.pem", ServerName: "t"},
		},
		TaskQueue: "canaries", Listen: ":0",
		Traffic: map[string]TrafficTarget{
			"eu": {Driver: "router", Gateways: []string{"https://a", "https://b:1/x"}, Token: fromFile, Timeout: 3 * time.Second,
				TLS: &ClientTLS{CA: in("gw.pem"), Cert: "/c.pem", Key: "/k.pem"}},
			"us": {Driver: "router", GatewaysDNS: "https://gateways.us:9901"},
		},
		Metrics: map[string]MetricsTarget{
			"eu": {Provider: "router", Gateways: []string{"https://a"}}, "us": {Provider: "router", GatewaysDNS: "https://gateways.us:9901"},
		},
		Notify: map[string]NotifyTarget{
			"default": {Slack: &SlackTarget{Token: Secret{Env: "SLACK", value: "xoxb"}, APIURL: "https://slack.example.com/api/"}},
			"ops": {Webhook: &WebhookTarget{
				URL: "https://hooks.example.com", Secret: Secret{Env: "HOOK", value: "sign"}, Headers: map[string]string{"X-Team": "agents"},
			}},
		},
		Sweep: Sweep{Every: time.Minute, Disabled: true}, Versioning: &Versioning{Deployment: "aviary", BuildID: "7"},
		GracefulStop: 5 * time.Second, Log: Log{Level: slog.LevelDebug, Format: "json"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Secret{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestGatewayExample(t *testing.T) {
	t.Parallel()
	const file = "../examples/gateway.yaml"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseGateway(file, data, environment("AVIARY_ADMIN_TOKEN", "hush"))
	if err != nil {
		t.Fatal(err)
	}
	want := Gateway{
		AdminToken: Secret{Env: "AVIARY_ADMIN_TOKEN", value: "hush"},
		Agents: map[string]GatewayAgent{"support-agent": {Stable: "v41", Versions: map[string]GatewayVersion{
			"v41": {URL: "http://127.0.0.1:9041"},
			"v42": {URL: "http://127.0.0.1:9042", Metadata: map[string]string{"model": "large-3", "prompt": "9f2c"}},
		}}},
	}
	want.StateFile = "../examples/gateway.state.json"
	want.SetDefaults() // the example shows the defaults
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Secret{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestGatewayFiles: they are looked for beside the settings, wherever the process runs, and all that is wrong is told at once.
func TestGatewayFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "gateway.yaml")
	in := func(name string) string { return filepath.Join(dir, name) }
	for name, text := range map[string]string{"token": " from a file\n", "k2": "0123456789abcdef\n", "short": "hush", "empty": "\n"} {
		if err := os.WriteFile(in(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const agents = "\nagents: {a: {stable: v1, versions: {v1: {url: 'http://127.0.0.1:1'}}}}"
	got, err := ParseGateway(file, []byte(`
admin_token_file: token
feedback_token_env: FEEDBACK
state_file: keep/state.json
pin_keys: [{id: k1, env: PINS}, {id: k2, file: k2}]
tls: {cert_file: a.crt, key_file: /a.key, client_ca_file: ca.crt}
admin_tls: {cert_file: b.crt, key_file: b.key}`+agents), environment("FEEDBACK", "told", "PINS", "0123456789abcdef0123456789abcdef"))
	if err != nil {
		t.Fatal(err)
	}
	want := Gateway{
		AdminToken:    Secret{File: in("token"), value: "from a file"},
		FeedbackToken: Secret{Env: "FEEDBACK", value: "told"},
		StateFile:     Path(in("keep/state.json")),
		PinKeys: []GatewayKey{
			{ID: "k1", Secret: Secret{Env: "PINS", value: "0123456789abcdef0123456789abcdef"}},
			{ID: "k2", Secret: Secret{File: in("k2"), value: "0123456789abcdef"}},
		},
		TLS:      &GatewayTLS{CertFile: Path(in("a.crt")), KeyFile: "/a.key", ClientCAFile: Path(in("ca.crt"))},
		AdminTLS: &GatewayTLS{CertFile: Path(in("b.crt")), KeyFile: Path(in("b.key"))},
		Agents:   got.Agents,
	}
	want.SetDefaults()
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Secret{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	_, err = ParseGateway(file, []byte(`
admin_token_env: NOBODY
feedback_token_file: nowhere
pin_keys: [{id: k1, env: NOR_ME}, {id: k2, file: short}, {id: k3, file: empty}, {id: k4}]`+agents), environment())
	for _, problem := range []string{
		"gateway.yaml:2: admin_token_env: the environment variable NOBODY is not set", "gateway.yaml:3: feedback_token_file: open " + in("nowhere"),
		"gateway.yaml:4: pin_keys[0].env: the environment variable NOR_ME", "pin_keys[1]: the secret has 4 bytes, want at least 16",
		"pin_keys[2].file: " + in("empty") + " is empty", "pin_keys[3]: want exactly one of env or file",
	} {
		if !strings.Contains(fmt.Sprint(err), problem) {
			t.Errorf("%q is missing in:\n%v", problem, err)
		}
	}
	if strings.Contains(fmt.Sprint(err), "hush") {
		t.Errorf("the secret is in:\n%v", err)
	}
}

func TestSecretNeverPrints(t *testing.T) {
	t.Parallel()
	w := Worker{Temporal: Temporal{APIKey: NewSecret("hush-hush")}}
	raw, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("settings", "worker", w, "key", w.Temporal.APIKey)
	key := w.Temporal.APIKey
	for name, text := range map[string]string{
		"json": string(raw), "slog": log.String(), "%v": fmt.Sprintf("%v", w), "%+v": fmt.Sprintf("%+v", &w), "%#v": fmt.Sprintf("%#v", w),
		"%s": fmt.Sprintf("%s", key), "%q": fmt.Sprintf("%q", key), "%x": fmt.Sprintf("%x", key), "%d": fmt.Sprintf("%d", &key), "String": key.String(),
	} {
		if strings.Contains(text, "hush") || strings.Contains(text, "68757368") || !strings.Contains(text, hidden) {
			t.Errorf("%s prints %s", name, text)
		}
	}
	if key.Reveal() != "hush-hush" || !key.Set() || (Secret{}).Set() {
		t.Errorf("reveals %q, set %t", key.Reveal(), key.Set())
	}
}

// TestProblemsHideSecrets puts what may be a secret wherever one may slip in, and wants it in no message.
func TestProblemsHideSecrets(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"temporal: {api_key: hush}", "temporal: {api_key_env: hush}", "temporal: {api_key_env: [hush]}", "temporal: {api_key_file: {hush: 1}}",
		"traffic: {default: {driver: router, gateways: ['http://hush@a']}}", "traffic: {default: {driver: router, gateways: ['http://a?token=hush']}}",
		"traffic: {default: {driver: router, gateways: ['http://u:hush@a b']}}",
		"traffic: {default: {driver: router, gateways_dns: 'http://u:hush@a'}}", "metrics: {default: {provider: router, gateways_dns: 'http://a?token=hush'}}",
		"notify: {default: {slack: {token: hush}}}", "notify: {a: {webhook: {url: 'http://a', headers: {Authorization: hush}}}}",
	} {
		_, err := ParseWorker("w.yaml", []byte(text), environment())
		if err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: got %v, want an error without the secret", text, err)
		}
	}
}
