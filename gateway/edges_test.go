package main

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
)

// status is that of the answer to raw, or 0 if the connection ends without one.
func (p *process) status(t *testing.T, raw string) int {
	t.Helper()
	c := p.dial(t)
	go io.WriteString(c, raw)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	return resp.StatusCode
}

func TestSettingsOfTheEdges(t *testing.T) {
	t.Parallel()
	const head = "GET /agents/support-agent/chat HTTP/1.1\r\nHost: x\r\n"
	post := strings.Replace(head, "GET", "POST", 1) + "Content-Length: 10\r\n\r\nabc"
	for _, tt := range []struct {
		name, settings, raw string
		status              int
		logged              string // "-": must not be
	}{
		{"logged", "", head + "X-Request-ID: it\r\n\r\n", 200, "msg=request method=GET path=/agents/support-agent/chat status=200"},
		{"traced", "", head + "X-Request-ID: it\r\n\r\n", 200, "trace_id="},
		{"not traced", "start_traces: false\n", head + "X-Request-ID: it\r\n\r\n", 200, "-trace_id="},
		{"not sampled", "access_log: {sample: 0}\n", head + "\r\n", 200, "-msg=request"},
		{"off", "access_log: {off: true}\n", strings.Replace(head, "agents", "nowhere", 1) + "\r\n", 404, "-msg=request"},
		{"another name for the id", "names: {request_id_header: X-Trace}\n", head + "X-Trace: mine\r\n\r\n", 200, "request_id=mine"},
		{"client that sends no header", "timeouts: {read_header: 300ms}\n", head, 0, ""},
		{"client that sends no body", "timeouts: {client_read: 300ms}\n", post, 408, "status=408"},
		{"header beyond the limit", "max_header_bytes: 4096\n", head + "X-A: " + strings.Repeat("a", 20_000) + "\r\n\r\n", 431, ""},
		{"header within the limit", "max_header_bytes: 65536\n", head + "X-A: " + strings.Repeat("a", 20_000) + "\r\n\r\n", 200, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, settingsFile(t, t.TempDir(), newTeller(t).url, tt.settings))
			if got := p.status(t, tt.raw); got != tt.status {
				t.Errorf("answered %d, want %d", got, tt.status)
			}
			p.stop()
			if code := p.exit(t); code != 0 {
				t.Errorf("exit %d", code)
			}
			if not, ok := strings.CutPrefix(tt.logged, "-"); ok == strings.Contains(p.err.String(), not) {
				t.Errorf("logged, want %q:\n%s", tt.logged, p.err)
			}
		})
	}
}

func TestPublicAdminAPIInPlainHTTPIsWarnedOf(t *testing.T) {
	t.Parallel()
	for listen, public := range map[string]bool{"127.0.0.1:0": false, "[::1]:0": false, "localhost:0": false, ":9901": true, "0.0.0.0:9901": true, "10.0.0.1:9901": true} {
		if loopback(listen) == public {
			t.Errorf("%s: loopback is %v", listen, !public)
		}
	}
	settings := settingsFile(t, t.TempDir(), newAgents(t), "")
	edit(t, settings, "admin_listen: 127.0.0.1:0", "admin_listen: 0.0.0.0:0")
	p := start(t, settings)
	if !strings.Contains(p.err.String(), "in plain HTTP") {
		t.Errorf("no warning:\n%s", p.err)
	}
}
