package proxy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
)

// lines is a log that can be read while it is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

// all are the lines so far, decoded.
func (l *lines) all(t *testing.T) []map[string]any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []map[string]any
	for line := range bytes.Lines(l.buf.Bytes()) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, m)
	}
	return out
}

// wait polls for the line of the request with the id.
func (l *lines) wait(t *testing.T, id string) map[string]any {
	t.Helper()
	var found map[string]any
	eventually(t, "the request "+id+" is logged", func() bool {
		for _, m := range l.all(t) {
			if m["request_id"] == id {
				found = m
			}
		}
		return found != nil
	})
	return found
}

func logTo(l *lines, sample float64) func(*Options) {
	return func(o *Options) {
		o.AccessLog, o.AccessSample = slog.New(slog.NewJSONHandler(l, nil)), sample
	}
}

func TestAccessLogLine(t *testing.T) {
	t.Parallel()
	var log lines
	w := newWorld(t, say("stable"), func(rw http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		io.WriteString(rw, "hello")
	}, logTo(&log, 1), func(o *Options) { o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	w.route(10000, 1)
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	w.do(http.MethodPost, "/v1/chat%2Fx?token=in-the-query", strings.NewReader("in-the-body"), "X-Request-ID", "one", "Traceparent", trace,
		"X-Forwarded-For", "6.6.6.6", "Authorization", "Bearer in-the-header", "Cookie", "a=in-the-cookie", "X-Canary-Token", "in-the-token",
		"X-Conversation-ID", "in-the-id", "X-Aviary-Pin", "in-the-pin")
	line := log.wait(t, "one")
	d, err := w.router.Decide(agent, router.Request{Key: "any"})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"msg": "request", "level": "INFO", "method": "POST", "path": "/agents/support-agent/v1/chat%2Fx", "status": 200.0, "agent": agent,
		"version": "v42", "reason": "weight", "bytes_in": 11.0, "bytes_out": 5.0, "client": "6.6.6.6", "request_id": "one", "proto": "HTTP/1.1",
		"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "upstream": d.Target().Host}
	for k, v := range want {
		if line[k] != v {
			t.Errorf("%s is %v, want %v", k, line[k], v)
		}
	}
	if d, first := line["duration"].(float64), line["ttfb"].(float64); d <= 0 || first <= 0 || first > d {
		t.Errorf("duration %v, ttfb %v", d, first)
	}
	if b := line["bucket"].(float64); b < 0 || b >= 10000 {
		t.Errorf("bucket %v", b)
	}
	if line["error"] != nil || line["migrated_from"] != nil {
		t.Errorf("line %v", line)
	}
	if text := fmt.Sprint(log.all(t)); strings.Contains(text, "in-the-") {
		t.Errorf("a secret is logged: %s", text)
	}
}

// TestFailuresAreAlwaysLogged: with a sample of nothing, what went well leaves no line and all else does.
func TestFailuresAreAlwaysLogged(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		agent  http.HandlerFunc
		ask    func(w *world, id string)
		status float64
		error  string
	}{
		{"answer", say("fine"), nil, 0, ""},
		{"fault of the client's", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusTeapot) }, nil, 0, ""},
		{"fault of the agent's", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusInternalServerError) }, nil, 500, ""},
		{"no answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, nil, 502, "EOF"},
		{"broken off", func(rw http.ResponseWriter, _ *http.Request) {
			io.WriteString(rw, "begun")
			rw.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, broken, 200, "unexpected EOF"},
		{"refused", say(""), func(w *world, id string) { w.get("/%2e%2e/", "X-Request-ID", id) }, 400, "path has a . or .. segment"},
		{"unknown", say(""), func(w *world, id string) {
			ask(w, w.front.URL+"/nowhere", id)
		}, 404, "no agent is reached by this host and path"},
		{"client goes", waits, func(w *world, id string) {
			c := w.dial()
			fmt.Fprintf(c, "GET /agents/%s/ HTTP/1.1\r\nHost: x\r\nX-Request-ID: %s\r\n\r\n", agent, id)
			eventually(w.t, "the request arrives", func() bool { return w.proxy.Live() == 1 })
			c.Close()
		}, 499, "the client went away"},
		{"withdrawn", waits, func(w *world, id string) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				w.get("/", "X-Request-ID", id)
			}()
			eventually(w.t, "the request arrives", func() bool { return w.proxy.Live() == 1 })
			w.rollback(2, api.Kill)
			<-done
		}, 503, "the version was withdrawn"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var log lines
			w := newWorld(t, say("stable"), tt.agent, logTo(&log, 0))
			w.route(10000, 1)
			if tt.ask == nil {
				tt.ask = func(w *world, id string) { w.get("/", "X-Request-ID", id) }
			}
			tt.ask(w, "it")
			if tt.status == 0 {
				w.get("/%2e%2e/", "X-Request-ID", "last")
				log.wait(t, "last")
				if n := len(log.all(t)); n != 1 {
					t.Errorf("%d lines, want that of the last request alone: %v", n, log.all(t))
				}
				return
			}
			line := log.wait(t, "it")
			if text := fmt.Sprint(line["error"]); line["status"] != tt.status || (tt.error != "" && !strings.Contains(text, tt.error)) {
				t.Errorf("status %v, error %v: want %v, %s", line["status"], line["error"], tt.status, tt.error)
			}
		})
	}
}

// waits for the client to go.
func waits(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() }

// broken asks, and expects an answer that is cut short.
func broken(w *world, id string) {
	resp := w.open(limited(w.t), "X-Request-ID", id)
	if _, err := io.ReadAll(resp.Body); err == nil {
		w.t.Error("the answer looks whole")
	}
}

func ask(w *world, url, id string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(limited(w.t), http.MethodGet, url, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("X-Request-ID", id)
	resp, err := w.client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	resp.Body.Close()
}

func TestUpgradeIsLogged(t *testing.T) {
	t.Parallel()
	var log lines
	w := newWorld(t, upgrade, say(""), logTo(&log, 1))
	c := w.dial()
	fmt.Fprintf(c, "GET /agents/%s/ws HTTP/1.1\r\nHost: x\r\nX-Request-ID: ws\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", agent)
	r := bufio.NewReader(c)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("answer %v, %v", resp, err)
	}
	io.WriteString(c, "hello")
	if _, err := io.ReadFull(r, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
		t.Errorf("after the end: %q, %v", rest, err)
	}
	if line := log.wait(t, "ws"); line["status"] != 101.0 || line["error"] != nil || line["bytes_in"] != 5.0 || line["bytes_out"] != 5.0 {
		t.Errorf("line %v", line)
	}
}

func TestSampled(t *testing.T) {
	t.Parallel()
	const n = 20_000
	for _, share := range []float64{0, 0.01, 0.5, 0.9, 1} {
		hits := 0
		for range n {
			if sampled(requestID(nil), share) {
				hits++
			}
		}
		if d := math.Abs(float64(hits) - n*share); d > 5*math.Sqrt(n*share*(1-share)) {
			t.Errorf("share %v: %d of %d", share, hits, n)
		}
	}
	if sampled("x", math.NaN()) {
		t.Error("a share that is no number logs")
	}
	id := requestID(nil)
	first := sampled(id, 0.5)
	for range 10 {
		if sampled(id, 0.5) != first {
			t.Fatal("not a function of the id")
		}
	}
}

func TestNothingIsLoggedWithoutALog(t *testing.T) {
	t.Parallel()
	var log lines
	quiet := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
	w := newWorld(t, say("stable"), say(""), func(o *Options) { o.AccessLog, o.AccessSample = quiet, 1 })
	w.get("/")
	eventually(t, "the request is over", func() bool { return w.proxy.Live() == 0 })
	if got := log.all(t); len(got) != 0 {
		t.Errorf("logged %v", got)
	}
}
