package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aviary-rollouts/aviary/router/api"
)

// upgrade echoes bytes on a connection that was upgraded, as WebSocket does.
func upgrade(rw http.ResponseWriter, req *http.Request) {
	if !strings.EqualFold(req.Header.Get("Upgrade"), "websocket") {
		http.Error(rw, "want an upgrade", http.StatusUpgradeRequired)
		return
	}
	conn, buf, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	io.Copy(conn, buf)
}

func TestUpgradePassesBothWays(t *testing.T) {
	t.Parallel()
	for _, end := range []string{"client closes", "kill"} {
		t.Run(end, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, say(""), upgrade)
			w.route(10000, 1)
			c := w.dial()
			fmt.Fprintf(c, "GET /agents/%s/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", agent)
			r := bufio.NewReader(c)
			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode != 101 || resp.Header.Get("X-Agent-Version") != "v42" {
				t.Fatalf("answer %v, %v", resp, err)
			}
			for i := range 3 {
				fmt.Fprintf(c, "message %d\n", i)
				if line, err := r.ReadString('\n'); err != nil || line != fmt.Sprintf("message %d\n", i) {
					t.Fatalf("echo %q, %v", line, err)
				}
			}
			if w.proxy.Live() != 1 {
				t.Errorf("%d live requests, want 1", w.proxy.Live())
			}
			if end == "kill" {
				w.rollback(2, api.Kill)
				if rest, err := io.ReadAll(r); len(rest) != 0 {
					t.Errorf("after the kill: %q, %v", rest, err)
				}
			}
			c.Close()
			eventually(t, "the connection is counted", func() bool { return w.counter("v42").Requests == 1 })
			if err := w.proxy.Wait(limited(t)); err != nil {
				t.Errorf("wait: %v", err)
			}
			if n := w.counter("v42").Errors; n != 0 {
				t.Errorf("%d errors", n)
			}
		})
	}
}

func TestContinueAndHead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(rw http.ResponseWriter, req *http.Request) {
		if req.Header.Get("X-Refuse") != "" {
			http.Error(rw, "too much", http.StatusRequestEntityTooLarge)
			return
		}
		body, _ := io.ReadAll(req.Body)
		fmt.Fprintf(rw, "got %d", len(body))
	}, say(""))
	c := w.dial()
	fmt.Fprintf(c, "POST /agents/%s/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n", agent)
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("first line %q, %v", line, err)
	}
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "abc")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "got 3" {
		t.Errorf("answer %q, %v", body, err)
	}
	if resp, body := w.do(http.MethodHead, "/", nil); resp.StatusCode != 200 || body != "" || resp.Header.Get("Content-Length") != "5" {
		t.Errorf("HEAD: %d %q %v", resp.StatusCode, body, resp.Header)
	}
}
