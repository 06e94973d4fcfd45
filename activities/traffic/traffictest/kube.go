//go:build k8s

package traffictest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/internal/kube"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Cluster is an administrator's access to the API server that the environment variable AVIARY_KUBECONFIG names. It has the
// kinds of Istio and of the Gateway API.
func Cluster(t *testing.T) *rest.Config {
	t.Helper()
	path := os.Getenv("AVIARY_KUBECONFIG")
	if path == "" {
		t.Fatal("AVIARY_KUBECONFIG is not set, want the kubeconfig of an API server for tests")
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// KubeDialect is what the suite needs to know of a plane on Kubernetes.
type KubeDialect struct {
	Open         func(kube.Settings) (traffic.Leased, error)
	Kind         string // empty: the driver's usual one
	Resource     schema.GroupVersionResource
	Object       func(namespace string) *unstructured.Unstructured // with a rule "testers" and then a rule "weighted", all of it for bot-a
	Rules        []string                                          // where the rules are
	Destinations string                                            // where a rule's destinations are
	Total        int64
	Older        string // another version of the API that the driver takes where the best is not served; empty: none
	// Parent gives an object a parent, and Status is what that says of a generation. Nil: nobody has to accept such objects.
	Parent func(o *unstructured.Unstructured)
	Status func(generation int64, resolved bool) map[string]any
}

// kubePlane is a plane in a namespace of its own, behind a proxy that can get between the driver and the API server.
type kubePlane struct {
	Plane
	dialect   KubeDialect
	namespace string
	admin     dynamic.Interface
	leased    traffic.Leased
	proxy     *meddler
}

// meddler passes requests on to the API server, as an administrator or as the user it is told, and meddles on request.
type meddler struct {
	url    string
	user   atomic.Pointer[string]
	mu     sync.Mutex
	meddle func(w http.ResponseWriter, r *http.Request) (done bool) // nil: nothing
	calls  map[string]int                                           // by method
}

func (m *meddler) with(meddle func(w http.ResponseWriter, r *http.Request) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.meddle = meddle
}

// once runs act before the first request that has the method and holds the path, and then lets all pass.
func (m *meddler) once(method, path string, act func()) {
	var done atomic.Bool
	m.with(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == method && strings.Contains(r.URL.Path, path) && done.CompareAndSwap(false, true) {
			act()
		}
		return false
	})
}

// counted is how many calls of a method there were since the last time.
func (m *meddler) counted(method string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.calls[method]
	clear(m.calls)
	return n
}

func newMeddler(t *testing.T, config *rest.Config) *meddler {
	t.Helper()
	transport, err := rest.TransportFor(config)
	if err != nil {
		t.Fatal(err)
	}
	server, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	m := &meddler{calls: map[string]int{}}
	pass := &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(server) }}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		meddle := m.meddle
		m.calls[r.Method]++
		m.mu.Unlock()
		if meddle != nil && meddle(w, r) {
			return
		}
		if user := m.user.Load(); user != nil {
			r.Header.Set("Impersonate-User", *user)
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	m.url = s.URL
	return m
}

// kubeconfig writes one for a server that asks for nothing.
func kubeconfig(t *testing.T, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: %q}}]\nusers: [{name: u, user: {}}]\n"+
		"contexts: [{name: c, context: {cluster: c, user: u}}]\ncurrent-context: c\n", server)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var namespaces atomic.Int64

// newKubePlane makes a namespace with an object and a driver that sees no other.
func newKubePlane(t *testing.T, config *rest.Config, d KubeDialect) kubePlane {
	t.Helper()
	config = rest.CopyConfig(config)
	config.QPS = -1
	admin, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	p := kubePlane{dialect: d, admin: admin, proxy: newMeddler(t, config)}
	p.namespace = fmt.Sprintf("t%d-%d", time.Now().UnixNano(), namespaces.Add(1))
	space := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace"}}
	space.SetName(p.namespace)
	if _, err := admin.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).Create(t.Context(), space, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p.create(t)
	p.leased, err = d.Open(kube.Settings{Kubeconfig: kubeconfig(t, p.proxy.url), Namespaces: []string{p.namespace}})
	if err != nil {
		t.Fatal(err)
	}
	p.Plane = Plane{
		Driver: p.leased, Agent: "bot", Stable: "v1", Canary: "v2",
		Object: &rollout.Object{
			Namespace: p.namespace, Kind: d.Kind, Name: "bot", Rule: "weighted", Stable: rollout.Destination{Host: "bot-a"}, Canary: rollout.Destination{Host: "bot-b"},
		},
	}
	return p
}

// create makes the object anew, labelled as the agent's.
func (p kubePlane) create(t *testing.T) {
	t.Helper()
	o := p.dialect.Object(p.namespace)
	o.SetNamespace(p.namespace)
	o.SetName("bot")
	o.SetLabels(map[string]string{kube.AgentLabel: "bot"})
	if _, err := p.objects().Create(t.Context(), o, metav1.CreateOptions{FieldManager: "platform"}); err != nil {
		t.Fatal(err)
	}
}

func (p kubePlane) objects() dynamic.ResourceInterface {
	return p.admin.Resource(p.dialect.Resource).Namespace(p.namespace)
}

func (p kubePlane) leaseObjects() dynamic.ResourceInterface {
	return p.admin.Resource(schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}).Namespace(p.namespace)
}

func (p kubePlane) object(t *testing.T) *unstructured.Unstructured {
	t.Helper()
	o, err := p.objects().Get(t.Context(), "bot", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// edit changes the object as somebody else does, and as often as it takes.
func (p kubePlane) edit(ctx context.Context, manager string, change func(o *unstructured.Unstructured)) error {
	patient := retry.DefaultBackoff
	patient.Steps = 50
	return retry.RetryOnConflict(patient, func() error {
		o, err := p.objects().Get(ctx, "bot", metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(o)
		_, err = p.objects().Update(ctx, o, metav1.UpdateOptions{FieldManager: manager})
		return err
	})
}

func (p kubePlane) mustEdit(t *testing.T, manager string, change func(o *unstructured.Unstructured)) {
	t.Helper()
	if err := p.edit(t.Context(), manager, change); err != nil {
		t.Errorf("edit as %s: %v", manager, err)
	}
}

// rules of an object, to change in place with setRules.
func (p kubePlane) rules(o *unstructured.Unstructured) []any {
	rules, _, err := unstructured.NestedSlice(o.Object, p.dialect.Rules...)
	if err != nil {
		panic(err)
	}
	return rules
}

func (p kubePlane) setRules(o *unstructured.Unstructured, rules []any) {
	if err := unstructured.SetNestedSlice(o.Object, rules, p.dialect.Rules...); err != nil {
		panic(err)
	}
}

// weighted changes the rule "weighted".
func (p kubePlane) weighted(change func(rule map[string]any)) func(o *unstructured.Unstructured) {
	return func(o *unstructured.Unstructured) {
		rules := p.rules(o)
		for _, r := range rules {
			if rule := r.(map[string]any); rule["name"] == "weighted" {
				change(rule)
			}
		}
		p.setRules(o, rules)
	}
}

// setWeights writes weights as somebody else does.
func (p kubePlane) setWeights(a, b int64) func(o *unstructured.Unstructured) {
	return p.weighted(func(rule map[string]any) {
		to := rule[p.dialect.Destinations].([]any)
		to[0].(map[string]any)["weight"], to[1].(map[string]any)["weight"] = a, b
	})
}

// weights of the rule "weighted", in its order.
func (p kubePlane) weights(o *unstructured.Unstructured) (out [2]int64) {
	p.weighted(func(rule map[string]any) {
		for i, to := range rule[p.dialect.Destinations].([]any) {
			out[i], _ = to.(map[string]any)["weight"].(int64)
		}
	})(o)
	return out
}

func (p kubePlane) wantWeights(t *testing.T, canary int64) {
	t.Helper()
	if got, want := p.weights(p.object(t)), [2]int64{p.dialect.Total - canary, canary}; got != want {
		t.Errorf("weights %v, want %v", got, want)
	}
}

// testers is the rule that nobody but its owners may touch, as JSON.
func (p kubePlane) testers(o *unstructured.Unstructured) string {
	for _, r := range p.rules(o) {
		if r.(map[string]any)["name"] == "testers" {
			raw, err := json.Marshal(r)
			if err != nil {
				panic(err)
			}
			return string(raw)
		}
	}
	return ""
}

// refuse answers as an API server does that is not there: it breaks the connection.
func refuse(w http.ResponseWriter, _ *http.Request) bool {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	return true
}

// body is a request's body, which stays to be read.
func body(r *http.Request) string {
	raw, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(raw))
	return string(raw)
}

// eventually polls until done, for at most half a minute.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}
