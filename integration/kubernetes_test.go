//go:build k8s

package integration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/activities/traffic/gatewayapi"
	"github.com/aviary-rollouts/aviary/activities/traffic/istio"
	"github.com/aviary-rollouts/aviary/internal/kube"
	"github.com/aviary-rollouts/aviary/internal/stack"
	"github.com/aviary-rollouts/aviary/rollout"
)

// routing is a kind of object that holds weights, on a mesh of istiod's.
type routing struct {
	driver   string
	kind     schema.GroupVersionResource
	manifest func(namespace string) map[string]any
	weights  func(spec map[string]any) (a, b int64) // of the weighted rule
	open     func(kube.Settings) (traffic.Leased, error)
}

var routings = []routing{
	{
		driver: "istio", kind: schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"},
		manifest: virtualService,
		weights:  func(spec map[string]any) (int64, int64) { return weightsOf(spec, "http", "route") },
		open:     func(s kube.Settings) (traffic.Leased, error) { return istio.New(s) },
	},
	{
		driver: "gateway-api", kind: schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"},
		manifest: httpRoute,
		weights:  func(spec map[string]any) (int64, int64) { return weightsOf(spec, "rules", "backendRefs") },
		open:     func(s kube.Settings) (traffic.Leased, error) { return gatewayapi.New(s) },
	},
}

func virtualService(namespace string) map[string]any {
	to := func(slot string, weight int64) map[string]any {
		return map[string]any{"destination": map[string]any{"host": slot, "port": map[string]any{"number": int64(8080)}}, "weight": weight}
	}
	return map[string]any{
		"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": map[string]any{"name": "bot", "namespace": namespace},
		"spec": map[string]any{"hosts": []any{"bot"}, "http": []any{
			map[string]any{
				"name":  "testers",
				"match": []any{map[string]any{"headers": map[string]any{"x-canary": map[string]any{"exact": "true"}}}},
				"route": []any{to("b", 100)},
			},
			map[string]any{"name": "weighted", "route": []any{to("a", 100), to("b", 0)}},
		}},
	}
}

func httpRoute(namespace string) map[string]any {
	to := func(slot string, weight int64) map[string]any {
		return map[string]any{"name": slot, "port": int64(8080), "weight": weight}
	}
	return map[string]any{
		"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": map[string]any{"name": "bot", "namespace": namespace},
		"spec": map[string]any{
			"parentRefs": []any{map[string]any{"group": "", "kind": "Service", "name": "bot"}},
			"rules": []any{
				map[string]any{
					"name":        "testers",
					"matches":     []any{map[string]any{"headers": []any{map[string]any{"name": "x-canary", "value": "true"}}}},
					"backendRefs": []any{to("b", 1)},
				},
				map[string]any{"name": "weighted", "backendRefs": []any{to("a", 10000), to("b", 0)}},
			},
		},
	}
}

func weightsOf(spec map[string]any, rules, destinations string) (a, b int64) {
	all, _ := spec[rules].([]any)
	for _, r := range all {
		rule := r.(map[string]any)
		if rule["name"] != "weighted" {
			continue
		}
		to := rule[destinations].([]any)
		at := func(i int) int64 { w, _ := to[i].(map[string]any)["weight"].(int64); return w }
		return at(0), at(1)
	}
	return -1, -1
}

// mesh is an agent on a mesh: two slots, a and b, in which versions run, a client that istiod tells where to send its calls, and
// what Prometheus scrapes of them.
type mesh struct {
	*world
	routing
	namespace string
	client    *kube.Client
	control   string // of the client
	address   string // of this machine, where the versions listen: Kubernetes takes no loopback address

	mu       sync.Mutex
	deployed map[string]string // version by slot
	failing  map[string]float64
	requests map[[2]string]int // by version and code
}

func newMesh(t testing.TB, r routing) *mesh {
	t.Helper()
	client, err := kube.Open(kube.Settings{Kubeconfig: os.Getenv("AVIARY_KUBECONFIG"), Timeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	m := &mesh{
		routing: r, namespace: "agents-" + strings.ToLower(stack.Token()[:8]), client: client,
		deployed: map[string]string{"a": "v41", "b": "v42"}, failing: map[string]float64{}, requests: map[[2]string]int{},
	}
	m.create(t, schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, "", map[string]any{
		"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": m.namespace},
	})
	ports := m.startClient(t)
	for name, port := range map[string]int64{"bot": ports["stable"], "a": ports["stable"], "b": ports["canary"]} {
		m.create(t, schema.GroupVersionResource{Version: "v1", Resource: "services"}, m.namespace, map[string]any{
			"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"name": name, "namespace": m.namespace},
			"spec": map[string]any{"ports": []any{map[string]any{"name": "grpc", "port": int64(8080), "appProtocol": "grpc"}}},
		})
		m.create(t, schema.GroupVersionResource{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}, m.namespace, map[string]any{
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
			"metadata":  map[string]any{"name": name, "namespace": m.namespace, "labels": map[string]any{"kubernetes.io/service-name": name}},
			"ports":     []any{map[string]any{"name": "grpc", "port": port}},
			"endpoints": []any{map[string]any{"addresses": []any{m.address}, "conditions": map[string]any{"ready": true}}},
		})
	}
	m.create(t, r.kind, m.namespace, r.manifest(m.namespace))
	return m
}

// run starts the rest around the mesh: Temporal, a worker, Prometheus, traffic.
func (m *mesh) run(t testing.TB) {
	t.Helper()
	m.world = newWorld(t, worldOptions{noWorker: true})
	exporter := httptest.NewServer(http.HandlerFunc(m.metrics))
	t.Cleanup(exporter.Close)
	at, err := url.Parse(exporter.URL)
	m.must(err)
	prometheus := startPrometheus(t, m.dir, at.Host)
	m.eventually("a scrape of the versions", func() error { return scraped(prometheus, "bot") })
	cluster := map[string]any{"driver": m.driver, "kubeconfig": os.Getenv("AVIARY_KUBECONFIG"), "namespaces": []string{m.namespace}}
	m.write("worker.yaml", map[string]any{
		"listen": "127.0.0.1:0", "traffic": map[string]any{"cluster": cluster},
		"metrics": map[string]any{"prom": map[string]any{"provider": "prometheus", "address": prometheus}},
	})
	guarded := maps.Clone(cluster)
	guarded["kubeconfig"] = filepath.Join(os.Getenv("AVIARY_KUBE_USERS"), "guard.kubeconfig")
	m.write("guard.yaml", map[string]any{"listen": "127.0.0.1:0", "traffic": map[string]any{"cluster": guarded}})
	m.startWorker()
	m.sendCalls(t)
}

func (m *mesh) create(t testing.TB, kind schema.GroupVersionResource, namespace string, manifest map[string]any) {
	t.Helper()
	if _, err := m.client.Objects(kind, namespace).Create(t.Context(), &unstructured.Unstructured{Object: manifest}, metav1.CreateOptions{}); err != nil {
		t.Fatalf("create %s: %v", kind.Resource, err)
	}
}

// startClient starts the client with its two versions, and returns the versions' ports.
func (m *mesh) startClient(t testing.TB) map[string]int64 {
	t.Helper()
	bin, err := stack.Binary(filepath.Join("kube", "xds"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "--xds", os.Getenv("AVIARY_XDS"), "--namespace", m.namespace)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var told struct {
		Control, Address string
		Stable, Canary   int64
	}
	if err := json.Unmarshal(line, &told); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	m.control, m.address = told.Control, told.Address
	return map[string]int64{"stable": told.Stable, "canary": told.Canary}
}

// calls makes n calls and returns how many each slot got.
func (m *mesh) calls(n int, tester bool) (a, b int, err error) {
	query := url.Values{"host": {"bot." + m.namespace + ".svc.cluster.local:8080"}, "n": {fmt.Sprint(n)}}
	if tester {
		query.Set("canary", "true")
	}
	resp, err := http.Get(m.control + "/calls?" + query.Encode())
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	var got struct {
		Stable, Canary, Failed int
		Error                  string
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		return 0, 0, err
	}
	if got.Failed > 0 {
		return got.Stable, got.Canary, fmt.Errorf("%d of %d calls failed: %s", got.Failed, n, got.Error)
	}
	return got.Stable, got.Canary, nil
}

// sendCalls makes calls until the test ends, and counts them by the version that runs in the slot.
func (m *mesh) sendCalls(t testing.TB) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		for tick := time.NewTicker(100 * time.Millisecond); ctx.Err() == nil; <-tick.C {
			a, b, err := m.calls(12, false)
			if err != nil {
				continue // counted nowhere: istiod has not told of the route yet
			}
			m.mu.Lock()
			for slot, n := range map[string]int{"a": a, "b": b} {
				version := m.deployed[slot]
				for range n {
					code := "200"
					if rand.Float64() < m.failing[version] {
						code = "500"
					}
					m.requests[[2]string{version, code}]++
				}
			}
			m.mu.Unlock()
		}
	}()
}

func (m *mesh) metrics(w http.ResponseWriter, _ *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fmt.Fprintln(w, "# TYPE agent_requests_total counter")
	for _, version := range []string{"v41", "v42", "v43"} {
		for _, code := range []string{"200", "500"} {
			fmt.Fprintf(w, "agent_requests_total{agent=\"bot\",version=%q,code=%q} %d\n", version, code, m.requests[[2]string{version, code}])
		}
	}
}

func (m *mesh) deploy(slot, version string, failing float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deployed[slot], m.failing[version] = version, failing
}

// object is the route as the API server has it.
func (m *mesh) object(t testing.TB) *unstructured.Unstructured {
	t.Helper()
	o, err := m.client.Objects(m.kind, m.namespace).Get(t.Context(), "bot", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// share is what slot b gets.
func (m *mesh) share(t testing.TB) float64 {
	t.Helper()
	a, b := m.weights(m.object(t).Object["spec"].(map[string]any))
	return float64(b) / float64(a+b)
}

// rolloutFile names the two slots as at the very first rollout, whatever has been promoted since.
func (m *mesh) rolloutFile(stable, canary, stages string) string {
	return fmt.Sprintf(`
agent: bot
stable: %s
canary: %s
traffic:
  driver: %s
  target: cluster
  lease: 5s
  object: {namespace: %s, name: bot, rule: weighted, stable: {host: a}, canary: {host: b}}
metrics: {provider: prometheus, target: prom, interval: 1s}
analysis: {settle: 1s}
rollback_criteria: {max_safety_violations: null, max_error_increase: 1.0, max_latency_increase: null, max_completion_drop: null}
canary_stages:
%s`, stable, canary, m.driver, m.namespace, stages)
}

const twoStages = "  - {name: some, weight: 0.2, duration: 4s, min_requests: 40}\n  - {name: half, weight: 0.5, duration: 4s, min_requests: 100}\n"

// TestKubernetesRollouts: on each kind of route one rollout is promoted, and the next one, from a file that names the same two
// slots, is taken back. The testers' route stays as it was, and real calls go where the route says.
func TestKubernetesRollouts(t *testing.T) {
	t.Parallel()
	for _, r := range routings {
		t.Run(r.driver, func(t *testing.T) {
			t.Parallel()
			m := newMesh(t, r)
			m.run(t)
			m.eventually("calls by xDS", func() error { _, _, err := m.calls(1, false); return err })

			file := m.file("first.yaml", m.rolloutFile("v41", "v42", twoStages))
			if out, code := m.starter("lint", "--live", file); code != 0 {
				t.Fatalf("what the rollout needs: code %d:\n%s", code, out)
			}
			out, code := m.starter("start", file, "--watch")
			if code != 0 || !strings.Contains(out, "promoted") {
				t.Fatalf("the good canary ended with code %d:\n%s", code, out)
			}
			if s := m.share(t); s != 1 {
				t.Errorf("slot b has %v after the promotion, want all", s)
			}
			m.goesTo(t, 1, "b")

			m.deploy("a", "v43", 0.5)
			out, code = m.starter("start", m.file("second.yaml", m.rolloutFile("v42", "v43", twoStages)), "--watch")
			if code != 3 || !strings.Contains(out, "error_rate_increase") {
				t.Fatalf("the bad canary ended with code %d:\n%s", code, out)
			}
			if s := m.share(t); s != 1 {
				t.Errorf("slot b has %v after the rollback, want all: stable runs there now", s)
			}
			m.goesTo(t, 1, "b")
			if _, b, err := m.calls(100, true); err != nil || b != 100 {
				t.Errorf("%d of 100 testers' calls reach slot b (%v)", b, err)
			}
			was := r.manifest(m.namespace)["spec"].(map[string]any)
			is := m.object(t).Object["spec"].(map[string]any)
			if tester(was) == "" || tester(was) != tester(is) {
				t.Errorf("the testers' rule was\n%s\nand is\n%s", tester(was), tester(is))
			}
		})
	}
}

// tester is the testers' rule as text, without what the API server fills in.
func tester(spec map[string]any) string {
	for _, key := range []string{"http", "rules"} {
		all, _ := spec[key].([]any)
		for _, r := range all {
			if rule := r.(map[string]any); rule["name"] == "testers" {
				match, _ := json.Marshal([]any{rule["match"], rule["route"]})
				if refs, ok := rule["backendRefs"].([]any); ok {
					ref := refs[0].(map[string]any)
					match, _ = json.Marshal([]any{ref["name"], ref["weight"], len(refs)})
				}
				return string(match)
			}
		}
	}
	return ""
}

// goesTo waits until all calls reach a slot.
func (m *mesh) goesTo(t testing.TB, share int, slot string) {
	t.Helper()
	m.eventually("all calls reach slot "+slot, func() error {
		a, b, err := m.calls(50, false)
		if err == nil && (share == 1) != (b == 50) {
			err = fmt.Errorf("%d reach a, %d b", a, b)
		}
		return err
	})
}

// guardRights gives the user guard the rights of deploy/kubernetes/guard.yaml in the namespace, and no others.
func (m *mesh) guardRights(t testing.TB) {
	t.Helper()
	text, err := os.ReadFile("../deploy/kubernetes/guard.yaml")
	m.must(err)
	for _, doc := range strings.Split(string(text), "\n---\n") {
		var role map[string]any
		m.must(yaml.Unmarshal([]byte(strings.NewReplacer("[ai-agent]", "[bot]", "[support-agent]", "[bot]").Replace(doc)), &role))
		if role["kind"] != "Role" {
			continue
		}
		rbac := schema.GroupVersionResource{Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "roles"}
		role["metadata"] = map[string]any{"name": "guard", "namespace": m.namespace}
		m.create(t, rbac, m.namespace, role)
		rbac.Resource = "rolebindings"
		m.create(t, rbac, m.namespace, map[string]any{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": map[string]any{"name": "guard", "namespace": m.namespace},
			"roleRef":  map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "guard"},
			"subjects": []any{map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "guard"}},
		})
		return
	}
	t.Fatal("deploy/kubernetes/guard.yaml has no Role")
}

// TestKubernetesGuard: when every worker is killed in the middle of a rollout, the guard gives all traffic to stable, as a process of
// its own that has no rights but to leases and routes. A worker that comes back goes on.
func TestKubernetesGuard(t *testing.T) {
	t.Parallel()
	for _, r := range routings {
		t.Run(r.driver, func(t *testing.T) {
			t.Parallel()
			m := newMesh(t, r)
			m.run(t)
			m.guardRights(t)
			bin, err := stack.Binary("worker")
			m.must(err)
			guard, err := stack.Run("guard", filepath.Join(m.dir, "guard.log"), nil, bin, "guard", "--config", filepath.Join(m.dir, "guard.yaml"))
			m.must(err)
			t.Cleanup(guard.Kill)
			m.eventually("calls by xDS", func() error { _, _, err := m.calls(1, false); return err })
			m.start(m.rolloutFile("v41", "v42", "  - {name: watch, weight: 0.5, duration: 10m}\n"))
			m.until("bot", "half of the traffic", func(s rollout.Status) bool { return s.Phase == rollout.Observing && s.Weight == 5000 })
			m.eventually("calls reach the canary", func() error {
				_, b, err := m.calls(50, false)
				if err == nil && b == 0 {
					err = errors.New("none does")
				}
				return err
			})
			if s := m.share(t); s != 0.5 {
				t.Fatalf("slot b has %v, want half", s)
			}
			m.worker.Kill()
			killed := time.Now()
			m.eventually("the guard takes the canary back", func() error {
				if s := m.share(t); s != 0 {
					return fmt.Errorf("slot b has %v", s)
				}
				return nil
			})
			t.Logf("%s: stable has all %s after the last worker was killed; the lease was 5s", r.driver, time.Since(killed).Round(10*time.Millisecond))
			m.startWorker()
			m.eventually("the rollout goes on", func() error {
				if s := m.share(t); s != 0.5 {
					return fmt.Errorf("slot b has %v", s)
				}
				return nil
			})
			if out, code := m.starter("abort", "bot"); code != 0 {
				t.Fatalf("abort: code %d:\n%s", code, out)
			}
			m.until("bot", "aborted", func(s rollout.Status) bool { return s.Phase == rollout.Aborted })
			if s := m.share(t); s != 0 {
				t.Errorf("slot b has %v after the abort", s)
			}
		})
	}
}

// BenchmarkKubernetesWithdrawal is how long it takes from the restore's first call to weight 0 in the object, and until no call reaches
// the canary any more.
func BenchmarkKubernetesWithdrawal(b *testing.B) {
	for _, r := range routings {
		b.Run(r.driver, func(b *testing.B) {
			m := newMesh(b, r)
			d, err := r.open(kube.Settings{Kubeconfig: os.Getenv("AVIARY_KUBECONFIG"), Namespaces: []string{m.namespace}})
			if err != nil {
				b.Fatal(err)
			}
			route := rollout.Route{
				Agent: "bot", Stable: "v41", Canary: "v42", Owner: "o", Lease: rollout.Duration(time.Minute), OnRollback: rollout.Evict,
				Object: &rollout.Object{Namespace: m.namespace, Name: "bot", Rule: "weighted",
					Stable: rollout.Destination{Host: "a"}, Canary: rollout.Destination{Host: "b"}},
			}
			var patched, seen []time.Duration
			for b.Loop() {
				route.Revision++
				route.Weight, route.Rollback = 5000, false
				applied(b, d, route)
				reached(b, m, func(canary int) bool { return canary > 5 })
				route.Revision++
				route.Weight, route.Rollback = 0, true
				began := time.Now()
				applied(b, d, route)
				patched = append(patched, time.Since(began))
				reached(b, m, func(canary int) bool { return canary == 0 })
				seen = append(seen, time.Since(began))
			}
			for name, all := range map[string][]time.Duration{"patched": patched, "seen": seen} {
				slices.Sort(all)
				b.ReportMetric(float64(all[len(all)/2])/1e6, name+"-p50-ms")
				b.ReportMetric(float64(all[len(all)*99/100])/1e6, name+"-p99-ms")
			}
		})
	}
}

func applied(b *testing.B, d traffic.Driver, route rollout.Route) {
	b.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := d.Apply(b.Context(), route)
		if err == nil {
			return
		}
		var rejected *traffic.Rejected
		if errors.As(err, &rejected) || time.Now().After(deadline) {
			b.Fatal(err)
		}
	}
}

func reached(b *testing.B, m *mesh, done func(canary int) bool) {
	b.Helper()
	deadline := time.Now().Add(patience)
	for {
		_, canary, err := m.calls(20, false)
		if err == nil && done(canary) {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%d of 20 calls reach the canary, %v", canary, err)
		}
	}
}
