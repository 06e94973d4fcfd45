package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
)

const agent = "support-agent"

// world is a gateway with a stable and a canary version behind it.
type world struct {
	t      *testing.T
	router *router.Router
	proxy  *Proxy
	front  *httptest.Server
	client *http.Client
}

// newWorld serves stable by the first handler, and the canary by the second.
func newWorld(t *testing.T, stable, canary http.HandlerFunc, change ...func(*Options)) *world {
	t.Helper()
	return newWorldAt(t, serve(t, stable), serve(t, canary), change...)
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func newWorldAt(t *testing.T, stableURL, canaryURL string, change ...func(*Options)) *world {
	t.Helper()
	return newWorldOf(t, router.AgentOptions{Stable: "v41", Versions: map[string]api.Version{"v41": {URL: stableURL}, "v42": {URL: canaryURL}}}, change...)
}

func newWorldOf(t *testing.T, options router.AgentOptions, change ...func(*Options)) *world {
	t.Helper()
	ring, err := router.NewKeyring(router.Key{ID: "k", Secret: []byte("0123456789abcdef0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	r, err := router.New(router.Options{Keys: ring, Agents: map[string]router.AgentOptions{agent: options}})
	if err != nil {
		t.Fatal(err)
	}
	var o Options
	for _, c := range change {
		c(&o)
	}
	p, err := New(r, o)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, router: r, proxy: p, front: httptest.NewServer(p)}
	w.client = w.front.Client()
	t.Cleanup(func() {
		w.front.CloseClientConnections()
		w.front.Close()
		p.Close()
	})
	return w
}

// route sets the canary's weight, for ever.
func (w *world) route(weight int, revision int64) {
	w.t.Helper()
	w.set(api.Route{Stable: "v41", Canary: "v42", Weight: weight, Owner: "o", Revision: revision})
}

func (w *world) rollback(revision int64, policy string) {
	w.t.Helper()
	w.set(api.Route{Stable: "v41", Canary: "v42", Owner: "o", Revision: revision, Rollback: true, OnRollback: policy})
}

func (w *world) set(route api.Route) {
	w.t.Helper()
	if _, err := w.router.SetRoute(agent, route); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) url(path string) string { return w.front.URL + "/agents/" + agent + path }

// get asks with the headers given as name, value, name, value, and returns the answer with its body read.
func (w *world) get(path string, headers ...string) (*http.Response, string) {
	w.t.Helper()
	return w.do(http.MethodGet, path, nil, headers...)
}

func (w *world) do(method, path string, body io.Reader, headers ...string) (*http.Response, string) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.url(path), body)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := w.client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(raw)
}

func (w *world) counter(version string) api.Counter {
	w.t.Helper()
	c, err := w.router.Counters(agent)
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Versions[version]
}

// dial is a raw connection to the proxy.
func (w *world) dial() net.Conn {
	w.t.Helper()
	c, err := net.Dial("tcp", w.front.Listener.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// eventually polls until ok, for at most ten seconds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// say answers with text.
func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
}

// echoHeaders answers with the request's line, host and headers, sorted.
func echoHeaders(w http.ResponseWriter, req *http.Request) {
	io.WriteString(w, req.Method+" "+req.RequestURI+"\nHost: "+req.Host+"\n")
	req.Header.Write(w)
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is missing in:\n%s", p, text)
		}
	}
}

// limited ends after ten seconds, or with the test.
func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// metric is the value of the series with the label, as Prometheus reads it.
func (w *world) metric(name, label, value string) float64 {
	w.t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(w.router.Collector())
	families, err := registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetName() == label && l.GetValue() == value {
					return m.GetCounter().GetValue() + m.GetGauge().GetValue()
				}
			}
		}
	}
	w.t.Fatalf("no metric %s{%s=%q}", name, label, value)
	return 0
}
