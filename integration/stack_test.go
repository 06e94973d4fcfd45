// Package integration runs the built binaries as processes against real servers: a Temporal server, gateways, workers, Prometheus.
// `make integration` builds them first.
package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"
	tlog "go.temporal.io/sdk/log"

	"github.com/aviary-rollouts/aviary/examples/agent"
	"github.com/aviary-rollouts/aviary/internal/stack"
	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/router/api"
	"github.com/aviary-rollouts/aviary/workflows"
)

// patience bounds every wait. It is generous: a busy machine must not fail a test.
const patience = 90 * time.Second

func TestMain(m *testing.M) {
	for _, name := range []string{"devstack", "gateway", "worker", "starter"} {
		if _, err := stack.Binary(name); err != nil {
			fmt.Fprintln(os.Stderr, "integration:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// world is a stack of its own: Temporal, a gateway, a worker and the versions of its agents.
type world struct {
	t       testing.TB
	dir     string
	token   string
	db      string // Temporal's database file; empty: in memory
	port    string // Temporal's port, kept over a restart
	options worldOptions

	devstack *stack.Devstack
	gateway  *stack.Gateway
	second   *stack.Gateway // another replica; nil: none
	worker   *stack.Worker
	temporal client.Client
	admin    *api.Client
}

type worldOptions struct {
	agents      []string         // default: support-agent
	behavior    []agent.Behavior // default: v41, v42 and v43
	file        bool             // Temporal keeps its state in a file
	noWorker    bool
	sweep       string               // how often orphans are looked for; default 5m
	prom        string               // address of a Prometheus for the metrics target prom
	sideEffects bool                 // of the agents' requests: they are never mirrored
	replicas    int                  // of the gateway, 1 or 2; default 1
	env         []string             // of the processes, besides
	arrived     func(version string) // is told of every request that reaches a version; nil: nobody is
}

func good() []agent.Behavior {
	return []agent.Behavior{
		{Version: "v41", ErrorRate: 0.01, TaskFailureRate: 0.06},
		{Version: "v42", TaskFailureRate: 0.02},
		{Version: "v43", ErrorRate: 0.05, TaskFailureRate: 0.50},
	}
}

// perfect versions never fail, so that nothing but the test ends a rollout.
func perfect() []agent.Behavior { return []agent.Behavior{{Version: "v41"}, {Version: "v42"}} }

func newWorld(t testing.TB, o worldOptions) *world {
	t.Helper()
	if o.agents == nil {
		o.agents = []string{"support-agent"}
	}
	if o.behavior == nil {
		o.behavior = good()
	}
	if o.sweep == "" {
		o.sweep = "5m"
	}
	w := &world{t: t, dir: t.TempDir(), token: stack.Token(), port: "0", options: o}
	if o.file {
		w.db = filepath.Join(w.dir, "temporal.db")
	}
	t.Cleanup(w.logs)
	w.startDevstack()
	w.writeGatewaySettings("127.0.0.1:0", "127.0.0.1:0")
	w.startGateway()
	if o.replicas == 2 {
		w.writeReplicaSettings("gateway-2", "127.0.0.1:0", "127.0.0.1:0")
		w.startSecond()
	}
	w.writeWorkerSettings()
	if !o.noWorker {
		w.startWorker()
	}
	return w
}

// logs shows the end of every process's log when the test failed.
func (w *world) logs() {
	if !w.t.Failed() {
		return
	}
	files, _ := filepath.Glob(filepath.Join(w.dir, "*.log"))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		w.t.Logf("%s ends with:\n%s", filepath.Base(f), b[max(0, len(b)-4000):])
	}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) ready() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

func (w *world) startDevstack() {
	w.t.Helper()
	ctx, cancel := w.ready()
	defer cancel()
	var err error
	w.devstack, err = stack.StartDevstack(ctx, w.dir, "--port", w.port, "--headless", "--db-filename", w.db)
	w.must(err)
	d := w.devstack
	w.t.Cleanup(func() { d.Kill() })
	_, w.port, _ = strings.Cut(w.devstack.Frontend, ":")
	w.temporal, err = client.DialContext(ctx, client.Options{HostPort: w.devstack.Frontend, Logger: tlog.NewStructuredLogger(discard())})
	w.must(err)
	w.t.Cleanup(w.temporal.Close)
}

func (w *world) writeGatewaySettings(listen, admin string) {
	w.t.Helper()
	w.writeReplicaSettings("gateway", listen, admin)
}

// writeReplicaSettings writes the settings of the replica with that name. All replicas check each other's pins.
func (w *world) writeReplicaSettings(name, listen, admin string) {
	w.t.Helper()
	versions := map[string]any{}
	for _, b := range w.options.behavior {
		handler := agent.Handler(b)
		server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
			if w.options.arrived != nil {
				w.options.arrived(b.Version)
			}
			handler.ServeHTTP(rw, req)
		}))
		w.t.Cleanup(server.Close)
		versions[b.Version] = map[string]string{"url": server.URL}
	}
	agents := map[string]any{}
	for _, name := range w.options.agents {
		agents[name] = map[string]any{"stable": "v41", "versions": versions, "side_effects": w.options.sideEffects}
	}
	// JSON is YAML.
	w.write(name+".yaml", map[string]any{
		"listen": listen, "admin_listen": admin, "admin_token_env": "AVIARY_ADMIN_TOKEN",
		"state_file": filepath.Join(w.dir, name+"-state.json"), "agents": agents,
		"pin_keys": []map[string]string{{"id": "k1", "env": "AVIARY_PIN_KEY"}},
		"timeouts": map[string]string{"shutdown": "5s"},
	})
}

func (w *world) writeWorkerSettings() {
	w.t.Helper()
	gateways := []string{"http://" + w.gateway.Admin}
	if w.second != nil {
		gateways = append(gateways, "http://"+w.second.Admin)
	}
	target := map[string]any{"gateways": gateways, "token_env": "AVIARY_ADMIN_TOKEN"}
	metrics := map[string]any{"default": with(target, "provider", "router")}
	if w.options.prom != "" {
		metrics["prom"] = map[string]any{"provider": "prometheus", "address": w.options.prom}
	}
	w.write("worker.yaml", map[string]any{
		"listen":  "127.0.0.1:0",
		"traffic": map[string]any{"default": with(target, "driver", "router")},
		"metrics": metrics,
		"sweep":   map[string]any{"every": w.options.sweep},
		"log":     map[string]any{"level": "debug"},
	})
}

func with(m map[string]any, key string, value any) map[string]any {
	out := map[string]any{key: value}
	for k, v := range m {
		out[k] = v
	}
	return out
}

func (w *world) write(name string, content any) {
	w.t.Helper()
	b, err := json.MarshalIndent(content, "", "  ")
	w.must(err)
	w.must(os.WriteFile(filepath.Join(w.dir, name), b, 0o600))
}

func (w *world) env() []string {
	return append([]string{"AVIARY_ADMIN_TOKEN=" + w.token, "AVIARY_PIN_KEY=pins of " + w.token, "TEMPORAL_ADDRESS=" + w.devstack.Frontend},
		w.options.env...)
}

func (w *world) startGateway() {
	w.t.Helper()
	ctx, cancel := w.ready()
	defer cancel()
	var err error
	w.gateway, err = stack.StartGateway(ctx, "gateway", w.dir, filepath.Join(w.dir, "gateway.yaml"), w.env()...)
	w.must(err)
	g := w.gateway
	w.t.Cleanup(func() { g.Kill() })
	w.admin, err = api.NewClient("http://"+w.gateway.Admin, w.token)
	w.must(err)
}

func (w *world) startSecond() {
	w.t.Helper()
	ctx, cancel := w.ready()
	defer cancel()
	var err error
	w.second, err = stack.StartGateway(ctx, "gateway-2", w.dir, filepath.Join(w.dir, "gateway-2.yaml"), w.env()...)
	w.must(err)
	g := w.second
	w.t.Cleanup(func() { g.Kill() })
}

func (w *world) startWorker() {
	w.t.Helper()
	ctx, cancel := w.ready()
	defer cancel()
	var err error
	w.worker, err = stack.StartWorker(ctx, w.dir, filepath.Join(w.dir, "worker.yaml"), w.env()...)
	w.must(err)
	p := w.worker
	w.t.Cleanup(func() { p.Kill() })
}

// url is where users reach an agent.
func (w *world) url(agentName string) string {
	return "http://" + w.gateway.Proxy + "/agents/" + agentName
}

// traffic sends turns until the test ends, or stop is called.
func (w *world) traffic(agentName string, rps float64) (traffic *agent.Traffic, stop func()) {
	traffic = &agent.Traffic{URL: w.url(agentName), RPS: rps, Users: 2000, Turns: 3}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		traffic.Run(ctx)
	}()
	stop = func() {
		cancel()
		<-done
	}
	w.t.Cleanup(stop)
	return traffic, stop
}

// starter runs the command line and returns its output and exit code.
func (w *world) starter(args ...string) (string, int) {
	w.t.Helper()
	bin, err := stack.Binary("starter")
	w.must(err)
	ctx, cancel := w.ready()
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = append(os.Environ(), w.env()...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("starter %v: %v\n%s", args, err, out)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// file writes a rollout file and returns its path.
func (w *world) file(name, text string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	w.must(os.WriteFile(path, []byte(text), 0o600))
	return path
}

// status is the rollout as the workflow tells it.
func (w *world) status(agentName string) (rollout.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var s rollout.Status
	v, err := w.temporal.QueryWorkflow(ctx, workflows.WorkflowID(agentName), "", workflows.QueryStatus)
	if err != nil {
		return s, err
	}
	return s, v.Get(&s)
}

// until waits for a condition on the rollout and returns the status that fulfils it.
func (w *world) until(agentName, what string, holds func(rollout.Status) bool) rollout.Status {
	w.t.Helper()
	var last rollout.Status
	w.eventually(fmt.Sprintf("%s: %s", agentName, what), func() error {
		s, err := w.status(agentName)
		if err != nil {
			return err
		}
		if last = s; !holds(s) {
			return fmt.Errorf("phase %s, stage %s, weight %s, observed %s, last decision %+v", s.Phase, s.Stage, s.Weight, s.Observed, s.Last)
		}
		return nil
	})
	return last
}

// route is what the gateway says.
func (w *world) route(agentName string) api.Observed {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := w.admin.Route(ctx, agentName)
	w.must(err)
	return r
}

// eventually asks until there is no error.
func (w *world) eventually(what string, ask func() error) {
	w.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s did not come about within %s: %v", what, patience, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// send is one turn of one conversation; it returns the version that answered.
func send(ctx context.Context, url, conversation string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/chat", strings.NewReader("{}"))
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Conversation-ID", conversation)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	return resp.Header.Get("X-Agent-Version"), nil
}
