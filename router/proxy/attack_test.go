package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
)

const (
	attackKey = "0123456789abcdef0123456789abcdef" // that of newWorld
	other     = "billing-agent"
)

// prey is a gateway whose agents remember what reached them.
type prey struct {
	*world
	ring *router.Keyring

	mu   sync.Mutex
	seen []http.Header // of requests, trailers included
}

func newPrey(t *testing.T, change ...func(*Options)) *prey {
	t.Helper()
	ring, err := router.NewKeyring(router.Key{ID: "k", Secret: []byte(attackKey)})
	if err != nil {
		t.Fatal(err)
	}
	p := &prey{ring: ring}
	say := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			_, _ = io.Copy(io.Discard, req.Body)
			all := req.Header.Clone()
			for name, values := range req.Trailer {
				all[name] = append(all[name], values...)
			}
			p.mu.Lock()
			p.seen = append(p.seen, all)
			p.mu.Unlock()
			_, _ = io.WriteString(w, text)
		}
	}
	p.world = newWorld(t, say("stable"), say("canary"), change...)
	for _, v := range [][2]string{{"v41", "other stable"}, {"v42", "other canary"}} { // the first is the stable one
		if _, err := p.router.PutVersion(other, v[0], api.Version{URL: serve(t, say(v[1]))}); err != nil {
			t.Fatal(err)
		}
	}
	p.route(0, 1)
	return p
}

func (p *prey) token() string { return p.ring.OverrideToken(agent, "v42", time.Now().Add(time.Hour)) }

// send sends a request as it stands, and returns the status and the body of the answer.
func (p *prey) send(request string) (int, string) {
	p.t.Helper()
	c := p.dial()
	if _, err := io.WriteString(c, request); err != nil {
		p.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// spotless wants nothing that is the proxy's among what reached the agents, in any spelling, and returns how many requests did.
func (p *prey) spotless() int {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.seen {
		for name, values := range h {
			switch fold(name) {
			case "x-canary", "x-canary-token", "x-aviary-pin", "x-agent-version", "x-conversation-migrated-from":
				p.t.Errorf("%s: %q reached the agent", name, values)
			case "x-request-id":
				if name != "X-Request-Id" || len(values) != 1 {
					p.t.Errorf("%s: %q reached the agent", name, values)
				}
			}
			if isForwarded(fold(name)) && strings.Contains(strings.Join(values, ","), "10.1.2.3") {
				p.t.Errorf("%s: %q reached the agent", name, values)
			}
		}
	}
	return len(p.seen)
}

// TestAttacksByHeader: an outsider who has no token, or one who has and sends it in odd ways. TOKEN stands for a good one.
func TestAttacksByHeader(t *testing.T) {
	t.Parallel()
	const get = "GET /agents/support-agent/ HTTP/1.1\r\nHost: x\r\n"
	for _, tt := range []struct {
		name, request string
		status        int
		body          string
	}{
		{"the good one", get + "X-Canary: v42\r\nX-Canary-Token: TOKEN\r\n\r\n", 200, "canary"},
		{"other case", get + "x-cANARY: v42\r\nX-CANARY-token: TOKEN\r\n\r\n", 200, "canary"},
		{"white space around", get + "X-Canary: \t v42 \t\r\nX-Canary-Token:TOKEN   \r\n\r\n", 200, "canary"},
		{"wish with another case", get + "X-Canary: V42\r\nX-Canary-Token: TOKEN\r\n\r\n", 403, ""},
		{"two wishes in one", get + "X-Canary: v42, v42\r\nX-Canary-Token: TOKEN\r\n\r\n", 403, ""},
		{"two wishes in two cases", get + "X-Canary: v42\r\nx-canary: v41\r\nX-Canary-Token: TOKEN\r\n\r\n", 200, "stable"},
		{"two tokens in one", get + "X-Canary: v42\r\nX-Canary-Token: TOKEN, TOKEN\r\n\r\n", 200, "stable"},
		{"two tokens, one of them empty", get + "X-Canary: v42\r\nX-Canary-Token:\r\nX-Canary-Token: TOKEN\r\n\r\n", 200, "stable"},
		{"a quoted token", get + "X-Canary: v42\r\nX-Canary-Token: \"TOKEN\"\r\n\r\n", 200, "stable"},
		{"a bearer", get + "X-Canary: v42\r\nX-Canary-Token: Bearer TOKEN\r\n\r\n", 200, "stable"},
		{"a padded token", get + "X-Canary: v42\r\nX-Canary-Token: TOKEN=\r\n\r\n", 200, "stable"},
		{"a token with a tail", get + "X-Canary: v42\r\nX-Canary-Token: TOKENA\r\n\r\n", 200, "stable"},
		{"a token cut short", get + "X-Canary: v42\r\nX-Canary-Token: TOK\r\n\r\n", 200, "stable"},
		{"a token in the wish", get + "X-Canary: TOKEN\r\n\r\n", 200, "stable"},
		{"a token as the pin", get + "X-Canary: v42\r\nX-Aviary-Pin: TOKEN\r\n\r\n", 200, "stable"},
		{"a token as the pin's cookie", get + "X-Canary: v42\r\nCookie: aviary_pin=TOKEN\r\n\r\n", 200, "stable"},
		{"a token as a cookie", get + "X-Canary: v42\r\nCookie: X-Canary-Token=TOKEN\r\n\r\n", 200, "stable"},
		{"a pin as the token", get + "X-Canary: v42\r\nX-Canary-Token: PIN\r\n\r\n", 200, "stable"},
		{"underscores", get + "X_Canary: v42\r\nX_Canary_Token: TOKEN\r\n\r\n", 200, "stable"},
		{"underscores beside", get + "X_Canary: v41\r\nX-Canary: v42\r\nX_Canary_Token: junk\r\nX-Canary_Token: junk\r\nX-Canary-Token: TOKEN\r\n\r\n", 200, "canary"},
		{"other punctuation", get + "X.Canary: v42\r\nX!Canary~Token: TOKEN\r\nX|Agent|Version: v42\r\nX_Aviary.Pin: x\r\nX_Request_ID: x\r\n\r\n", 200, "stable"},
		{"what the agent is told", get + "X-Agent-Version: v42\r\nX_Agent_Version: v42\r\nX_Conversation_Migrated_From: v42\r\n\r\n", 200, "stable"},
		{"hop by hop", get + "X-Canary: v42\r\nX-Canary-Token: TOKEN\r\nConnection: X-Canary, X-Canary-Token, X-Request-ID\r\n\r\n", 200, "canary"},
		{"hop by hop, forged", get + "X-Canary: v42\r\nX-Canary-Token: junk\r\nConnection: close, X-Canary-Token\r\n\r\n", 200, "stable"},
		{"in trailers", "POST /agents/support-agent/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Canary, X-Canary-Token, X_Canary, X_Canary_Token\r\n\r\n" +
			"1\r\na\r\n0\r\nX-Canary: v42\r\nX-Canary-Token: TOKEN\r\nX_Canary: v42\r\nX_Canary_Token: TOKEN\r\n\r\n", 200, "stable"},
		{"folded", get + "X-Canary:\r\n v42\r\nX-Canary-Token:\r\n\tTOKEN\r\n\r\n", 200, "canary"},
		{"folded into a token", get + "X-Canary: v42\r\nX-Canary-Token: TOKEN\r\n TOKEN\r\n\r\n", 200, "stable"},
		{"bare line feed", get + "X-A: b\nX-Canary: v42\r\n\r\n", 200, "stable"},
		{"bare carriage return", get + "X-A: b\rX-Canary: v42\r\n\r\n", 400, ""},
		{"a space before the colon", get + "X-Canary : v42\r\nX-Canary-Token : TOKEN\r\n\r\n", 400, ""},
		{"a look-alike dash", get + "X\u2010Canary: v42\r\nX-Canary-Token: TOKEN\r\n\r\n", 400, ""},
		{"a look-alike letter", get + "X-\u0421anary: v42\r\n\r\n", 400, ""},
		{"a look-alike wish", get + "X-Canary: \uff54rue\r\nX-Canary-Token: TOKEN\r\n\r\n", 403, ""},
		{"a look-alike wish without token", get + "X-Canary: \uff54rue\r\n\r\n", 200, "stable"},
		{"NUL in the wish", get + "X-Canary: v42\x00\r\nX-Canary-Token: TOKEN\r\n\r\n", 400, ""},
		{"a large token", get + "X-Canary: v42\r\nX-Canary-Token: " + strings.Repeat("A", 60_000) + "\r\n\r\n", 200, "stable"},
		{"many tokens", get + "X-Canary: v42\r\n" + strings.Repeat("X-Canary-Token: TOKEN\r\n", 500) + "\r\n", 200, "stable"},
		{"a path as the wish", get + "X-Canary: ../v42\r\nX-Canary-Token: TOKEN\r\n\r\n", 403, ""},
		{"in the query", "GET /agents/support-agent/?X-Canary=v42&X-Canary-Token=TOKEN HTTP/1.1\r\nHost: x\r\n\r\n", 200, "stable"},
		{"another agent", "GET /agents/billing-agent/ HTTP/1.1\r\nHost: x\r\nX-Canary: v42\r\nX-Canary-Token: TOKEN\r\n\r\n", 200, "other stable"},
		{"another agent by its host", "GET http://support-agent/agents/billing-agent/ HTTP/1.1\r\nHost: x\r\nX-Canary: v42\r\nX-Canary-Token: TOKEN\r\n\r\n", 200, "other stable"},
		{"another agent by dots", "GET /agents/support-agent/../billing-agent/ HTTP/1.1\r\nHost: x\r\nX-Canary: v42\r\nX-Canary-Token: TOKEN\r\n\r\n", 400, ""},
		{"another agent by hidden dots", "GET /agents/support-agent/%2e%2e/billing-agent/ HTTP/1.1\r\nHost: x\r\nX-Canary: v42\r\nX-Canary-Token: TOKEN\r\n\r\n", 400, ""},
		{"upgrade", get + "Connection: Upgrade, X-Canary-Token\r\nUpgrade: websocket\r\nX-Canary: v42\r\nX_Canary_Token: x\r\nX-Canary-Token: TOKEN\r\n\r\n", 200, "canary"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPrey(t)
			d, err := p.router.Decide(agent, router.Request{Key: "k"})
			if err != nil {
				t.Fatal(err)
			}
			pin := string(p.router.AppendPin(nil, &d))
			request := strings.NewReplacer("TOKEN", p.token(), "TOK\r", p.token()[:40]+"\r", "PIN", pin).Replace(tt.request)
			status, body := p.send(request)
			if status != tt.status || (status == 200 && body != tt.body) {
				t.Errorf("answer %d %q, want %d %q", status, body, tt.status, tt.body)
			}
			if n := p.spotless(); tt.body == "" && n > 0 {
				t.Errorf("%d requests reached the agent", n)
			}
		})
	}
}

// TestAttacksBySender: somebody outside says to be in the testers' network, which is 10.0.0.0/8. The proxy is asked by loopback.
func TestAttacksBySender(t *testing.T) {
	t.Parallel()
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	testers := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	direct := func(o *Options) { o.TrustedNetworks = testers }
	behind := func(o *Options) { o.TrustedNetworks, o.TrustedProxies = testers, loopback }
	for _, tt := range []struct {
		name    string
		options func(*Options)
		headers string
		body    string
	}{
		{"no proxy is trusted", direct, "X-Forwarded-For: 10.1.2.3\r\n", "stable"},
		{"by every header there is", direct, "X-Real-IP: 10.1.2.3\r\nForwarded: for=10.1.2.3\r\nX-Client-IP: 10.1.2.3\r\nTrue-Client-IP: 10.1.2.3\r\nX_Forwarded_For: 10.1.2.3\r\nX.Real.IP: 10.1.2.3\r\n", "stable"},
		{"the proxy appends on a line of its own", behind, "X-Forwarded-For: 10.1.2.3\r\nX-Forwarded-For: 6.6.6.6\r\n", "stable"},
		{"the proxy appends", behind, "X-Forwarded-For: 10.1.2.3, 6.6.6.6\r\n", "stable"},
		{"and others before it", behind, "X-Forwarded-For: 10.1.2.3, 6.6.6.6, 127.0.0.9\r\n", "stable"},
		{"with a port", behind, "X-Forwarded-For: 10.1.2.3:80\r\n", "stable"},
		{"in brackets", behind, "X-Forwarded-For: [::ffff:10.1.2.3]\r\n", "stable"},
		{"with zeros", behind, "X-Forwarded-For: 010.001.002.003\r\n", "stable"},
		{"empty", behind, "X-Forwarded-For: \r\n", "stable"},
		{"ends with a comma", behind, "X-Forwarded-For: 10.1.2.3,\r\n", "stable"},
		{"by underscores", behind, "X_Forwarded_For: 10.1.2.3\r\n", "stable"},
		{"by Forwarded alone", behind, "Forwarded: for=10.1.2.3\r\n", "stable"},
		{"by X-Real-IP alone", behind, "X-Real-IP: 10.1.2.3\r\n", "stable"},
		{"hop by hop", behind, "Connection: X-Forwarded-For\r\nX-Forwarded-For: 10.1.2.3, 6.6.6.6\r\n", "stable"},
		{"nobody but proxies", behind, "X-Forwarded-For: 127.0.0.8\r\n", "stable"},
		{"a tester, mapped into IPv6", behind, "X-Forwarded-For: ::ffff:10.1.2.3\r\n", "canary"},
		{"a tester with a forged token", behind, "X-Forwarded-For: 10.1.2.3\r\nX-Canary-Token: junk\r\n", "stable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPrey(t, tt.options)
			status, body := p.send("GET /agents/support-agent/ HTTP/1.1\r\nHost: x\r\nX-Canary: v42\r\n" + tt.headers + "\r\n")
			if status != 200 || body != tt.body {
				t.Errorf("answer %d %q, want %s", status, body, tt.body)
			}
		})
	}
	t.Run("what the agent is told", func(t *testing.T) {
		t.Parallel()
		p := newPrey(t, direct)
		p.send("GET /agents/support-agent/ HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.1.2.3\r\nX_Forwarded_For: 10.1.2.3\r\nX.Forwarded.For: 10.1.2.3\r\nX!Real!IP: 10.1.2.3\r\nForwarded: for=10.1.2.3\r\n\r\n")
		p.spotless()
	})
}

// TestAttacksByHTTP2 sends header blocks that no honest client would.
func TestAttacksByHTTP2(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		headers []string
		status  string // of the answer; empty: the stream is refused
		body    string
	}{
		{"the good one", []string{"x-canary", "v42", "x-canary-token", "TOKEN"}, "200", "canary"},
		{"a pseudo header", []string{":x-canary", "v42", "x-canary-token", "TOKEN"}, "", ""},
		{"upper case", []string{"X-Canary", "v42", "X-Canary-Token", "TOKEN"}, "", ""},
		{"a line break in the value", []string{"x-a", "b\r\nx-canary: v42", "x-canary-token", "TOKEN"}, "", ""},
		{"a line break in the name", []string{"x-a\r\nx-canary", "v42"}, "", ""},
		{"two tokens", []string{"x-canary", "v42", "x-canary-token", "TOKEN", "x-canary-token", "TOKEN"}, "200", "stable"},
		{"two wishes", []string{"x-canary", "v42", "x-canary", "v42", "x-canary-token", "TOKEN"}, "200", "stable"},
		{"underscores", []string{"x_canary", "v42", "x_canary_token", "TOKEN"}, "200", "stable"},
		{"white space", []string{"x-canary", "v42 ", "x-canary-token", " TOKEN"}, "200", "stable"},
		{"connection", []string{"connection", "x-canary-token", "x-canary", "v42", "x-canary-token", "TOKEN"}, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPrey(t)
			front := httptest.NewUnstartedServer(p.proxy)
			front.EnableHTTP2 = true
			front.StartTLS()
			t.Cleanup(front.Close)
			status, body := askHTTP2(t, front, tt.headers, p.token())
			if status != tt.status || body != tt.body {
				t.Errorf("answer %q %q, want %q %q", status, body, tt.status, tt.body)
			}
			if n := p.spotless(); tt.status == "" && n > 0 {
				t.Errorf("%d requests reached the agent", n)
			}
		})
	}
}

// askHTTP2 sends one request of raw header fields. A refused stream has no status; an answer of 400 is a refusal too.
func askHTTP2(t *testing.T, front *httptest.Server, headers []string, token string) (status, body string) {
	t.Helper()
	pool := front.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: &tls.Config{RootCAs: pool, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12}}
	c, err := d.DialContext(limited(t), "tcp", front.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	fields := append([]string{":method", "GET", ":scheme", "https", ":authority", "x", ":path", "/agents/support-agent/"}, headers...)
	for i := 0; i < len(fields); i += 2 {
		if err := enc.WriteField(hpack.HeaderField{Name: fields[i], Value: strings.ReplaceAll(fields[i+1], "TOKEN", token)}); err != nil {
			t.Fatal(err)
		}
	}
	framer := http2.NewFramer(c, c)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		ended := false
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			status, ended = f.PseudoValue("status"), f.StreamEnded()
		case *http2.DataFrame:
			body += string(f.Data())
			ended = f.StreamEnded()
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return "", ""
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if err := framer.WriteSettingsAck(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if ended && status == "400" {
			return "", ""
		}
		if ended {
			return status, body
		}
	}
}

// TestForgedTokens changes every byte of a good token in turn.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	p := newPrey(t)
	good := p.token()
	for i := range good {
		forged := []byte(good)
		if forged[i]++; forged[i] > 'z' {
			forged[i] = 'A'
		}
		resp, body := p.get("/", "X-Canary", "v42", "X-Canary-Token", string(forged))
		if resp.StatusCode != 200 || body != "stable" {
			t.Errorf("byte %d changed: %d %q, want it not believed", i, resp.StatusCode, body)
		}
	}
	p.spotless()
	if n := p.counter("v42").Requests; n != 0 {
		t.Errorf("%d requests of the canary counted, want none", n)
	}
}
