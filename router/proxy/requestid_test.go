package proxy

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(rw http.ResponseWriter, req *http.Request) {
		rw.Header().Set("X-Request-ID", "the agent's own")
		echoHeaders(rw, req)
	}, say(""))
	long := strings.Repeat("x", maxRequestID)
	for _, tt := range []struct {
		name  string
		given []string
		keeps bool
	}{
		{"uuid", []string{"6f1d8f5a-5a3e-4d6e-9a3c-0f4d5a1b2c3d"}, true},
		{"punctuation", []string{"a/b:c=d;e~!"}, true},
		{"longest", []string{long}, true},
		{"too long", []string{long + "x"}, false},
		{"empty", []string{""}, false},
		{"space", []string{"a b"}, false},
		{"tab", []string{"a\tb"}, false},
		{"not ASCII", []string{"é"}, false},
		{"two", []string{"a", "b"}, false},
		{"none", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var headers []string
			for _, v := range tt.given {
				headers = append(headers, "X-Request-ID", v)
			}
			resp, body := w.get("/", headers...)
			ids := resp.Header.Values("X-Request-ID")
			if len(ids) != 1 {
				t.Fatalf("answered with ids %q", ids)
			}
			contains(t, body, "X-Request-Id: "+ids[0]+"\r\n")
			if strings.Count(body, "X-Request-Id") != 1 {
				t.Errorf("the agent got several:\n%s", body)
			}
			if tt.keeps && ids[0] != tt.given[0] {
				t.Errorf("id %q, want the client's", ids[0])
			}
			if !tt.keeps && (len(ids[0]) != 32 || !lowerHex(ids[0])) {
				t.Errorf("id %q, want a new one", ids[0])
			}
		})
	}
}

func TestRequestIDIsInErrors(t *testing.T) {
	t.Parallel()
	w := newWorldAt(t, "http://127.0.0.1:1", "http://127.0.0.1:1", func(o *Options) { o.Names.RequestID = "x-correlation-id" })
	for path, status := range map[string]int{"/": 502, "/%2e%2e/": 400} {
		resp, body := w.get(path, "X-Correlation-ID", "mine")
		var e errorBody
		if err := json.Unmarshal([]byte(body), &e); err != nil || e.RequestID != "mine" || e.Code == "" {
			t.Errorf("body %s, %v", body, err)
		}
		if resp.StatusCode != status || resp.Header.Get("X-Correlation-ID") != "mine" || resp.Header.Get("X-Request-ID") != "" {
			t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
		}
	}
}

func TestTraceContext(t *testing.T) {
	t.Parallel()
	const id, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	w := newWorld(t, echoHeaders, say(""))
	off := newWorld(t, echoHeaders, say(""), func(o *Options) { o.NoTrace = true })
	for _, tt := range []struct {
		name   string
		parent []string
		passes bool
	}{
		{"sampled", []string{"00-" + id + "-" + span + "-01"}, true},
		{"not sampled", []string{"00-" + id + "-" + span + "-00"}, true},
		{"later version", []string{"cc-" + id + "-" + span + "-01"}, true},
		{"later version with more", []string{"cc-" + id + "-" + span + "-01-what-ever"}, true},
		{"later version, more without a dash", []string{"cc-" + id + "-" + span + "-01what"}, false},
		{"version 00 with more", []string{"00-" + id + "-" + span + "-01-x"}, false},
		{"version ff", []string{"ff-" + id + "-" + span + "-01"}, false},
		{"upper case", []string{"00-" + strings.ToUpper(id) + "-" + span + "-01"}, false},
		{"no trace", []string{"00-" + strings.Repeat("0", 32) + "-" + span + "-01"}, false},
		{"no parent", []string{"00-" + id + "-" + strings.Repeat("0", 16) + "-01"}, false},
		{"short", []string{"00-" + id + "-" + span + "-1"}, false},
		{"not hex", []string{"00-" + id + "-" + span + "-0g"}, false},
		{"wrong dashes", []string{"00_" + id + "_" + span + "_01"}, false},
		{"two", []string{"00-" + id + "-" + span + "-01", "00-" + id + "-" + span + "-01"}, false},
		{"empty", []string{""}, false},
		{"none", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			headers := []string{"Tracestate", "vendor=1", "Tracestate", "other=2"}
			for _, v := range tt.parent {
				headers = append(headers, "Traceparent", v)
			}
			got, state := tracesOf(w, headers)
			switch {
			case tt.passes && (got != tt.parent[0] || state != "vendor=1 other=2"):
				t.Errorf("traceparent %q, tracestate %q: want them as they came", got, state)
			case !tt.passes && (!validTraceparent(got) || strings.Contains(got, id) || !strings.HasSuffix(got, "-01") || state != ""):
				t.Errorf("traceparent %q, tracestate %q: want a new trace", got, state)
			}
			if got, state := tracesOf(off, headers); !tt.passes && (got != "" || state != "") {
				t.Errorf("without traces of its own: traceparent %q, tracestate %q", got, state)
			}
		})
	}
}

// tracesOf is what the agent gets.
func tracesOf(w *world, headers []string) (parent, state string) {
	w.t.Helper()
	_, body := w.get("/", headers...)
	var states []string
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		if v, ok := strings.CutPrefix(line, "Traceparent: "); ok {
			parent += v
		}
		if v, ok := strings.CutPrefix(line, "Tracestate: "); ok {
			states = append(states, v)
		}
	}
	return parent, strings.Join(states, " ")
}
