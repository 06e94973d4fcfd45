package proxy

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router/api"
)

func TestRequestsGoWhereTheRouteSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, say("stable"), say("canary"))
	if resp, body := w.get("/chat"); body != "stable" || resp.Header.Get("X-Agent-Version") != "v41" {
		t.Errorf("without a rollout: %q by %q", body, resp.Header.Get("X-Agent-Version"))
	}
	w.route(10000, 1)
	if resp, body := w.get("/chat"); body != "canary" || resp.Header.Get("X-Agent-Version") != "v42" {
		t.Errorf("all on the canary: %q by %q", body, resp.Header.Get("X-Agent-Version"))
	}
	if c := w.counter("v42"); c.Requests != 1 || c.Errors != 0 || c.Conversations != 1 {
		t.Errorf("canary's counter: %+v", c)
	}
}

func TestConversationStaysByHeaderOrCookie(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"header", "cookie"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, say("stable"), say("canary"))
			resp, _ := w.get("/", "X-Conversation-ID", "talk")
			echo := []string{"X-Aviary-Pin", resp.Header.Get("X-Aviary-Pin")}
			if by == "cookie" {
				echo = []string{"Cookie", resp.Cookies()[0].Name + "=" + resp.Cookies()[0].Value}
				if c := resp.Cookies()[0]; !c.HttpOnly || c.Path != "/agents/support-agent/" {
					t.Errorf("cookie %v", c)
				}
			}
			w.route(10000, 1)
			resp, body := w.get("/", append(echo, "X-Conversation-ID", "talk")...)
			if body != "stable" || resp.Header.Get("X-Aviary-Pin") != "" {
				t.Errorf("second turn: %q, new pin %q", body, resp.Header.Get("X-Aviary-Pin"))
			}
			if _, body := w.get("/", "X-Conversation-ID", "talk"); body != "canary" {
				t.Errorf("without the pin: %q", body)
			}
		})
	}
}

func TestAnonymousUserGetsACookieAndStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t, say("stable"), say("canary"))
	w.route(5000, 1)
	resp, first := w.get("/")
	var key *http.Cookie
	for _, c := range resp.Cookies() {
		if c.Name == "aviary_key" {
			key = c
		}
	}
	if key == nil {
		t.Fatalf("no key cookie in %v", resp.Cookies())
	}
	for range 20 {
		resp, body := w.get("/", "Cookie", "aviary_key="+key.Value)
		if body != first {
			t.Fatalf("went from %s to %s", first, body)
		}
		for _, c := range resp.Cookies() {
			if c.Name == "aviary_key" {
				t.Fatal("a second key cookie")
			}
		}
	}
}

func TestEvictionIsMarked(t *testing.T) {
	t.Parallel()
	w := newWorld(t, echoHeaders, say("canary"))
	w.route(10000, 1)
	resp, _ := w.get("/", "X-Conversation-ID", "talk")
	pin := resp.Header.Get("X-Aviary-Pin")
	w.rollback(2, api.Evict)
	resp, body := w.get("/", "X-Conversation-ID", "talk", "X-Aviary-Pin", pin, "X-Conversation-Migrated-From", "forged")
	contains(t, body, "X-Conversation-Migrated-From: v42")
	if strings.Contains(body, "forged") || resp.Header.Get("X-Conversation-Migrated-From") != "v42" {
		t.Errorf("marked %q:\n%s", resp.Header.Get("X-Conversation-Migrated-From"), body)
	}
	next := resp.Header.Get("X-Aviary-Pin")
	if _, body = w.get("/", "X-Conversation-ID", "talk", "X-Aviary-Pin", next); strings.Contains(body, "Migrated") {
		t.Errorf("the turn after it is marked again:\n%s", body)
	}
}

func TestWhatReachesTheAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, echoHeaders, echoHeaders)
	resp, body := w.get("/v1/chat%2Fx?q=a;b&c=%zz", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Host", "evil", "X-Real-Thing", "kept",
		"Connection", "X-Hop", "X-Hop", "dropped", "Keep-Alive", "timeout=5", "Proxy-Authorization", "secret", "Te", "trailers",
		"X-Canary", "true", "X-Canary-Token", "junk", "X-Aviary-Pin", "junk")
	contains(t, body, "GET /v1/chat%2Fx?q=a;b&c=%zz\n", "X-Forwarded-For: 127.0.0.1\r\n", "X-Forwarded-Proto: http\r\n",
		"X-Forwarded-Host: "+w.front.Listener.Addr().String(), "X-Real-Thing: kept\r\n", "Te: trailers")
	for _, gone := range []string{"6.6.6.6", "evil", "dropped", "Keep-Alive", "secret", "X-Canary", "junk"} {
		if strings.Contains(body, gone) {
			t.Errorf("%q reached the agent:\n%s", gone, body)
		}
	}
	if resp.Header.Get("X-Agent-Version") != "v41" {
		t.Error("the answer does not name its version")
	}
}

func TestForwardedByATrustedProxy(t *testing.T) {
	t.Parallel()
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	w := newWorld(t, echoHeaders, say("canary"), func(o *Options) { o.TrustedProxies = loopback })
	_, body := w.get("/", "X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "shop.example")
	contains(t, body, "X-Forwarded-For: 6.6.6.6, 127.0.0.1\r\n", "X-Forwarded-Proto: https\r\n", "X-Forwarded-Host: shop.example\r\n")
}

func TestHopByHopOfTheAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		for k, v := range map[string]string{"Connection": "X-Hop", "X-Hop": "x", "Keep-Alive": "x", "Proxy-Authenticate": "x",
			"X-Agent-Version": "a lie", "X-Kept": "x", "X-Aviary-Pin": "a lie"} {
			rw.Header().Set(k, v)
		}
	}, say(""))
	resp, _ := w.get("/")
	for _, name := range []string{"X-Hop", "Keep-Alive", "Proxy-Authenticate"} {
		if resp.Header.Get(name) != "" {
			t.Errorf("%s reached the client", name)
		}
	}
	if h := resp.Header; h.Get("X-Kept") != "x" || h.Get("X-Agent-Version") != "v41" || h.Get("X-Aviary-Pin") == "a lie" {
		t.Errorf("header %v", h)
	}
}

func TestMatching(t *testing.T) {
	t.Parallel()
	w := newWorld(t, echoHeaders, say(""), func(o *Options) {
		o.Agents = map[string]Match{"support-agent": {}, "by-host": {Host: "help.example"}, "by-path": {Path: "/x/"}, "deeper": {Path: "/x/y/"}}
	})
	base := serve(t, echoHeaders)
	for _, a := range []string{"by-host", "by-path", "deeper", "later"} {
		if _, err := w.router.PutVersion(a, "of-"+a, api.Version{URL: base + "/base"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		host, path    string
		status        int
		version, line string
	}{
		{"", "/agents/support-agent/a/b", 200, "v41", "GET /a/b\n"},
		{"", "/agents/support-agent", 200, "v41", "GET /\n"},
		{"", "/agents/support-agent/", 200, "v41", "GET /\n"},
		{"", "/agents/support-agentx/", 404, "", ""},
		{"", "/agents/nobody/", 404, "", ""},
		{"", "/agents/", 404, "", ""},
		{"", "/", 404, "", ""},
		{"help.example:8080", "/agents/x", 200, "of-by-host", "GET /base/agents/x\n"},
		{"HELP.example.", "/", 200, "of-by-host", "GET /base/\n"},
		{"", "/agents/by-host/", 404, "", ""},
		{"", "/x/z", 200, "of-by-path", "GET /base/z\n"},
		{"", "/x/y/z", 200, "of-deeper", "GET /base/z\n"},
		{"", "/xx/", 404, "", ""},
		{"", "/agents/later/z", 200, "of-later", "GET /base/z\n"},
		{"", "/agents/later/../../etc", 400, "", ""},
		{"", "/agents/later/%2e%2e/etc", 400, "", ""},
		{"", "/agents/later/.well-known/x", 200, "of-later", "GET /base/.well-known/x\n"},
		{"", "/agents/later/a%2Fb", 200, "of-later", "GET /base/a%2Fb\n"},
		{"", "/agent%73/later/a%2Fb", 404, "", ""},
	} {
		req := httptest.NewRequest(http.MethodGet, "http://gateway"+tt.path, nil)
		if tt.host != "" {
			req.Host = tt.host
		}
		rec := httptest.NewRecorder()
		w.proxy.ServeHTTP(rec, req)
		if rec.Code != tt.status || rec.Header().Get("X-Agent-Version") != tt.version || !strings.HasPrefix(rec.Body.String(), tt.line) {
			t.Errorf("%s%s: %d by %q: %.80q", tt.host, tt.path, rec.Code, rec.Header().Get("X-Agent-Version"), rec.Body)
		}
	}
}

func TestNewRefusesMatches(t *testing.T) {
	t.Parallel()
	for name, agents := range map[string]map[string]Match{
		"no slash at the end": {"a": {Path: "/a"}}, "no slash in front": {"a": {Path: "a/"}}, "dots": {"a": {Path: "/../"}},
		"port": {"a": {Host: "h:80"}}, "same twice": {"a": {Host: "H"}, "b": {Host: "h", Path: "/"}},
		"another's name": {"a": {Path: "/agents/b/"}},
	} {
		if _, err := newMatcher(agents); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestFaultsAreJSONAndCounted(t *testing.T) {
	t.Parallel()
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for _, tt := range []struct {
		name, url string
		status    int
		code      string
	}{
		{"refuses connections", closed.URL, 502, "bad_gateway"},
		{"hangs up", serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), 502, "bad_gateway"},
		{"does not answer", serve(t, func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() }), 504, "gateway_timeout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorldAt(t, tt.url, tt.url, func(o *Options) { o.HeaderTimeout = 100 * time.Millisecond })
			resp, body := w.get("/", "X-Conversation-ID", "talk")
			var e api.ErrorBody
			if err := json.Unmarshal([]byte(body), &e); err != nil || resp.StatusCode != tt.status || e.Code != tt.code {
				t.Errorf("answer %d %s (%v), want %d %s", resp.StatusCode, body, err, tt.status, tt.code)
			}
			if resp.Header.Get("X-Agent-Version") != "v41" || resp.Header.Get("X-Aviary-Pin") == "" {
				t.Errorf("header %v: want version and pin", resp.Header)
			}
			if c := w.counter("v41"); c.Requests != 1 || c.Errors != 1 {
				t.Errorf("counted %d requests, %d errors: want 1, 1", c.Requests, c.Errors)
			}
		})
	}
}

func TestCountedBeforeTheClientSeesTheEnd(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"length": say("hello"), "chunked": func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "hel")
			w.(http.Flusher).Flush()
			io.WriteString(w, "lo")
		}, "empty": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"error": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusInternalServerError) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, h, say(""))
			for i := range int64(200) {
				resp, _ := w.do([]string{"GET", "POST", "HEAD"}[i%3], "/", strings.NewReader(""))
				if c := w.counter("v41"); c.Requests != i+1 || (c.Errors == i+1) != (resp.StatusCode >= 500) {
					t.Fatalf("after answer %d: %d requests, %d errors", i+1, c.Requests, c.Errors)
				}
			}
			c := w.counter("v41")
			for _, histogram := range [][]int64{c.Latency, c.TTFB} {
				sum := int64(0)
				for _, n := range histogram {
					sum += n
				}
				if sum != 200 {
					t.Errorf("histogram holds %d requests, want 200", sum)
				}
			}
		})
	}
}

func TestFaultOfTheClientIsNotTheAgents(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(rw http.ResponseWriter, req *http.Request) {
		if _, err := io.Copy(rw, req.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	}, say(""))
	c := w.dial()
	fmt.Fprintf(c, "POST /agents/%s/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nthis is no chunk\r\n", agent)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil {
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	eventually(t, "the request is counted", func() bool { return w.counter("v41").Requests == 1 })
	if n := w.counter("v41").Errors; n != 0 {
		t.Errorf("%d errors counted against the agent", n)
	}
}

func TestSmugglingShapesAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, say("stable"), say(""))
	for name, head := range map[string]string{
		"two lengths":        "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
		"negative length":    "Content-Length: -1\r\n\r\n",
		"odd coding":         "Transfer-Encoding: xchunked\r\n\r\n",
		"space before colon": "Content-Length : 4\r\n\r\nabcd",
		"folded header":      "X-A: a\r\n b: c\r\nX-\x00: d\r\n\r\n",
		"two hosts":          "Host: y\r\n\r\n",
	} {
		c := w.dial()
		fmt.Fprintf(c, "POST /agents/%s/ HTTP/1.1\r\nHost: x\r\n%s", agent, head)
		raw, err := io.ReadAll(c)
		if err != nil || !(strings.HasPrefix(string(raw), "HTTP/1.1 400 ") || strings.HasPrefix(string(raw), "HTTP/1.1 501 ")) {
			t.Errorf("%s: %q, %v: want a refusal and the connection closed", name, raw, err)
		}
	}
	if n := w.counter("v41").Requests; n != 0 {
		t.Errorf("%d requests reached the agent", n)
	}
}

func TestRequestWithoutAVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, say(""), say(""))
	resp, body := w.get("/../nobody/x")
	if resp.StatusCode == 200 {
		t.Errorf("answer %d %s", resp.StatusCode, body)
	}
	req := httptest.NewRequest(http.MethodGet, "/elsewhere", nil)
	rec := httptest.NewRecorder()
	w.proxy.ServeHTTP(rec, req)
	var e api.ErrorBody
	if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil || rec.Code != 404 || e.Code != api.CodeUnknownAgent {
		t.Errorf("answer %d %s", rec.Code, rec.Body)
	}
}
