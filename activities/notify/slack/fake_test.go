package slack_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/slack-go/slack"

	"github.com/aviary-rollouts/aviary/activities/notify/notifytest"
)

const (
	token       = "xoxb-secret-token"
	channelName = "agent-releases"
	channelID   = "C0123456789"
)

// message is one in the fake workspace.
type message struct {
	TS        string              `json:"ts"`
	Thread    string              `json:"thread_ts,omitempty"`
	Text      string              `json:"text"`
	Metadata  slack.SlackMetadata `json:"metadata"`
	Blocks    slack.Blocks        `json:"blocks"`
	updates   int
	broadcast bool
}

func (m *message) id() string {
	id, _ := m.Metadata.EventPayload["id"].(string)
	return id
}

// workspace is a Slack with one channel: the methods that the notifier uses, with Slack's own words for what goes wrong.
type workspace struct {
	t   *testing.T
	url string

	mu       sync.Mutex
	messages []*message
	calls    []string
	fault    notifytest.Fault
	on       string // the method that the fault waits for; empty: the first that posts
	refusal  string // what Refused answers
	scopes   bool   // whether history may be read
	clock    int64
	release  chan struct{}
}

func newWorkspace(t *testing.T) *workspace {
	w := &workspace{t: t, scopes: true, refusal: "invalid_auth", release: make(chan struct{}), clock: time.Now().Unix()}
	srv := httptest.NewServer(w)
	w.url = srv.URL + "/"
	t.Cleanup(func() { close(w.release); srv.Close() })
	return w
}

func (w *workspace) fail(f notifytest.Fault, on string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault, w.on = f, on
}

func (w *workspace) seen() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []string
	for _, m := range w.messages {
		ids = append(ids, m.id())
	}
	return ids
}

func (w *workspace) snapshot() (messages []message, calls []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.messages {
		messages = append(messages, *m)
	}
	return messages, slices.Clone(w.calls)
}

func (w *workspace) delete(ts string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.messages = slices.DeleteFunc(w.messages, func(m *message) bool { return m.TS == ts })
}

// take is the fault for this call, once.
func (w *workspace) take(method string) notifytest.Fault {
	posting := method == "chat.postMessage"
	if w.fault == "" || (w.on == "" && !posting) || (w.on != "" && w.on != method) {
		return ""
	}
	f := w.fault
	w.fault = ""
	return f
}

func (w *workspace) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	method := r.URL.Path[1:]
	if err := r.ParseForm(); err != nil {
		http.Error(rw, err.Error(), http.StatusBadRequest)
		return
	}
	w.mu.Lock()
	w.calls = append(w.calls, method)
	fault := w.take(method)
	w.mu.Unlock()
	switch fault {
	case notifytest.Busy:
		rw.Header().Set("Retry-After", strconv.Itoa(int(notifytest.BusyFor.Seconds())))
		rw.WriteHeader(http.StatusTooManyRequests)
		return
	case notifytest.Broken:
		rw.WriteHeader(http.StatusBadGateway)
		_, _ = fmt.Fprint(rw, "<html>not JSON</html>")
		return
	case notifytest.Hang:
		select {
		case <-r.Context().Done():
		case <-w.release:
		}
		return
	case notifytest.Refused:
		answer(rw, map[string]any{"ok": false, "error": w.refusal})
		return
	}
	body := w.handle(method, r)
	if fault == notifytest.Lost {
		panic(http.ErrAbortHandler) // the connection breaks after the work is done
	}
	answer(rw, body)
}

func answer(rw http.ResponseWriter, body map[string]any) {
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(body)
}

func refuse(word string) map[string]any { return map[string]any{"ok": false, "error": word} }

func (w *workspace) handle(method string, r *http.Request) map[string]any {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Form.Get("token") != token {
		return refuse("invalid_auth")
	}
	switch method {
	case "chat.postMessage":
		return w.post(r)
	case "chat.update":
		return w.update(r)
	case "conversations.list":
		return w.list(r)
	case "conversations.history":
		return w.read(r, func(m *message) bool { return m.Thread == "" || m.broadcast }, true)
	case "conversations.replies":
		ts := r.Form.Get("ts")
		return w.read(r, func(m *message) bool { return m.TS == ts || m.Thread == ts }, false)
	}
	return refuse("unknown_method")
}

func (w *workspace) post(r *http.Request) map[string]any {
	channel := r.Form.Get("channel")
	if channel != channelID && channel != "#"+channelName && channel != channelName {
		return refuse("channel_not_found")
	}
	w.clock++
	m := &message{TS: fmt.Sprintf("%d.000100", w.clock), Thread: r.Form.Get("thread_ts"), broadcast: r.Form.Get("reply_broadcast") == "true"}
	if word := m.fill(r); word != "" {
		return refuse(word)
	}
	w.messages = append(w.messages, m)
	return map[string]any{"ok": true, "channel": channelID, "ts": m.TS}
}

// fill takes text, blocks and metadata, within Slack's limits.
func (m *message) fill(r *http.Request) string {
	m.Text = r.Form.Get("text")
	if err := json.Unmarshal([]byte(r.Form.Get("blocks")), &m.Blocks); err != nil || len(m.Blocks.BlockSet) > 50 {
		return "invalid_blocks"
	}
	for _, b := range m.Blocks.BlockSet {
		switch b := b.(type) {
		case *slack.HeaderBlock:
			if n := len([]rune(b.Text.Text)); n == 0 || n > 150 {
				return "invalid_blocks"
			}
		case *slack.SectionBlock:
			if n := len([]rune(b.Text.Text)); n == 0 || n > 3000 {
				return "invalid_blocks"
			}
		}
	}
	if meta := r.Form.Get("metadata"); meta != "" {
		if err := json.Unmarshal([]byte(meta), &m.Metadata); err != nil {
			return "invalid_metadata_format"
		}
	}
	return ""
}

func (w *workspace) update(r *http.Request) map[string]any {
	if r.Form.Get("channel") != channelID {
		return refuse("channel_not_found") // unlike posting, this takes IDs only
	}
	for _, m := range w.messages {
		if m.TS == r.Form.Get("ts") {
			if word := m.fill(r); word != "" {
				return refuse(word)
			}
			m.updates++
			return map[string]any{"ok": true, "channel": channelID, "ts": m.TS}
		}
	}
	return refuse("message_not_found")
}

// list pages one channel at a time.
func (w *workspace) list(r *http.Request) map[string]any {
	if !w.scopes {
		return map[string]any{"ok": false, "error": "missing_scope", "needed": "channels:read"}
	}
	if r.Form.Get("cursor") == "" {
		return map[string]any{
			"ok": true, "channels": []any{map[string]any{"id": "C0000000000", "name": "general"}},
			"response_metadata": map[string]any{"next_cursor": "second"},
		}
	}
	return map[string]any{"ok": true, "channels": []any{map[string]any{"id": channelID, "name": channelName}}}
}

// read pages two messages at a time, and tells metadata only when asked.
func (w *workspace) read(r *http.Request, want func(*message) bool, newestFirst bool) map[string]any {
	if !w.scopes {
		return map[string]any{"ok": false, "error": "missing_scope", "needed": "channels:history"}
	}
	if r.Form.Get("channel") != channelID {
		return refuse("channel_not_found")
	}
	oldest, _ := strconv.ParseFloat(r.Form.Get("oldest"), 64)
	var all []message
	for _, m := range w.messages {
		ts, _ := strconv.ParseFloat(m.TS, 64)
		if want(m) && ts >= oldest {
			c := *m
			if r.Form.Get("include_all_metadata") != "1" {
				c.Metadata = slack.SlackMetadata{}
			}
			all = append(all, c)
		}
	}
	if newestFirst {
		slices.Reverse(all)
	}
	from, _ := strconv.Atoi(r.Form.Get("cursor"))
	from = min(from, len(all))
	to := min(from+2, len(all))
	next := ""
	if to < len(all) {
		next = strconv.Itoa(to)
	}
	return map[string]any{
		"ok": true, "messages": all[from:to], "has_more": next != "", "response_metadata": map[string]any{"next_cursor": next},
	}
}
