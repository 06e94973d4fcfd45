package slack_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slack-go/slack"
	"github.com/slack-go/slack/slacktest"

	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/activities/notify/notifytest"
	aviaryslack "github.com/aviary-rollouts/aviary/activities/notify/slack"
	"github.com/aviary-rollouts/aviary/rollout"
)

func receiver(t *testing.T, w *workspace, channel string) notifytest.Receiver {
	n, err := aviaryslack.New(aviaryslack.Settings{Token: token, APIURL: w.url, RequestTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return notifytest.Receiver{
		Notifier: n,
		Address:  func(n *rollout.Notify) { n.Slack = &rollout.SlackNotice{Target: "default", Channel: channel} },
		Seen:     w.seen,
		Fail:     func(f notifytest.Fault) { w.fail(f, "") },
		Secrets:  []string{token},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	for _, channel := range []string{"#" + channelName, channelName, channelID} {
		t.Run(channel, func(t *testing.T) {
			t.Parallel()
			notifytest.Run(t, func(t *testing.T) notifytest.Receiver { return receiver(t, newWorkspace(t), channel) })
		})
	}
}

func notifyOnce(t *testing.T, r notifytest.Receiver, n rollout.Notice, thread notify.Thread, attempt int32) notify.Thread {
	t.Helper()
	thread, err := r.Notifier.Notify(t.Context(), notify.Request{Notice: n, Thread: thread, Attempt: attempt})
	if err != nil {
		t.Fatalf("notice %s, attempt %d: %v", n.ID, attempt, err)
	}
	return thread
}

func TestOneParentPerRolloutUpdated(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	r := receiver(t, w, "#"+channelName)
	var thread notify.Thread
	for i := 1; i <= 3; i++ {
		n := r.Notice("support", i)
		n.Status.Weight = rollout.Weight(i * 1000)
		thread = notifyOnce(t, r, n, thread, 1)
	}
	messages, calls := w.snapshot()
	parent := messages[0]
	if parent.Thread != "" || parent.updates != 2 || !strings.Contains(blocksText(t, parent), "canary weight *30%*") {
		t.Errorf("the parent message is %+v, want the state of the third notice after two updates", parent)
	}
	for _, m := range messages[1:] {
		if m.Thread != parent.TS || m.updates != 0 || m.broadcast {
			t.Errorf("message %+v is not a plain reply in the thread", m)
		}
	}
	want := []string{"chat.postMessage", "chat.update", "chat.postMessage", "chat.update", "chat.postMessage"}
	if !slices.Equal(calls, want) {
		t.Errorf("calls %v, want %v: no reading without need", calls, want)
	}
}

func TestLostAnswerOfUpdate(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	r := receiver(t, w, "#"+channelName)
	one, two := r.Notice("a", 1), r.Notice("a", 2)
	thread := notifyOnce(t, r, one, nil, 1)
	w.fail(notifytest.Lost, "chat.update")
	if _, err := r.Notifier.Notify(t.Context(), notify.Request{Notice: two, Thread: thread, Attempt: 1}); err == nil {
		t.Fatal("no error for a lost answer")
	}
	notifyOnce(t, r, two, thread, 2)
	if got := w.seen(); !slices.Equal(got, []string{one.ID, two.ID}) {
		t.Errorf("seen %v", got)
	}
}

// The answer to the first notice was lost for good; the second one must find the parent message.
func TestParentIsFoundWithoutThread(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	r := receiver(t, w, "#"+channelName)
	other := notifyOnce(t, r, r.Notice("b", 1), nil, 1)
	w.fail(notifytest.Lost, "chat.postMessage")
	if _, err := r.Notifier.Notify(t.Context(), notify.Request{Notice: r.Notice("a", 1), Attempt: 1}); err == nil {
		t.Fatal("no error for a lost answer")
	}
	for i := 2; i <= 4; i++ {
		other = notifyOnce(t, r, r.Notice("b", i), other, 1) // so that there is more than one page
	}
	fresh := receiver(t, w, "#"+channelName) // another worker, which knows no channel's ID
	notifyOnce(t, fresh, r.Notice("a", 2), nil, 1)
	messages, _ := w.snapshot()
	last := messages[len(messages)-1]
	if last.Thread != messages[1].TS || last.id() != r.Notice("a", 2).ID {
		t.Errorf("the second notice is %+v, want a reply to %s", last, messages[1].TS)
	}
}

func TestDeletedParentIsReplacedOnce(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	r := receiver(t, w, "#"+channelName)
	thread := notifyOnce(t, r, r.Notice("a", 1), nil, 1)
	messages, _ := w.snapshot()
	w.delete(messages[0].TS)
	two := r.Notice("a", 2)
	w.fail(notifytest.Lost, "chat.postMessage")
	if _, err := r.Notifier.Notify(t.Context(), notify.Request{Notice: two, Thread: thread, Attempt: 1}); err == nil {
		t.Fatal("no error for a lost answer")
	}
	thread = notifyOnce(t, r, two, thread, 2)
	three := r.Notice("a", 3)
	notifyOnce(t, r, three, thread, 1)
	if got := w.seen(); !slices.Equal(got, []string{two.ID, three.ID}) {
		t.Errorf("seen %v, want a new parent for the second notice, and the third below", got)
	}
}

// Without the right to look, a retry is refused and says what it needs: better one message too few than one too many.
func TestRetryWithoutScopes(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	w.scopes = false
	r := receiver(t, w, "#"+channelName)
	one, two := r.Notice("a", 1), r.Notice("a", 2)
	w.fail(notifytest.Lost, "chat.postMessage")
	_, err := r.Notifier.Notify(t.Context(), notify.Request{Notice: one, Attempt: 1})
	if err == nil {
		t.Fatal("no error for a lost answer")
	}
	_, err = r.Notifier.Notify(t.Context(), notify.Request{Notice: one, Attempt: 2})
	var rejected *notify.Rejected
	if !errors.As(err, &rejected) || !strings.Contains(err.Error(), "channels:read") {
		t.Fatalf("error %v, want *notify.Rejected naming the scope", err)
	}
	// The next notice is not held up by that.
	thread := notifyOnce(t, r, two, nil, 1)
	notifyOnce(t, r, r.Notice("a", 3), thread, 1)
	if got := len(w.seen()); got != 3 {
		t.Errorf("%d messages, want 3", got)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for word, final := range map[string]bool{
		"channel_not_found": true, "not_in_channel": true, "is_archived": true, "token_revoked": true, "a_new_word": true,
		"internal_error": false, "service_unavailable": false,
	} {
		w := newWorkspace(t)
		w.refusal = word
		r := receiver(t, w, channelID)
		r.Fail(notifytest.Refused)
		_, err := r.Notifier.Notify(t.Context(), notify.Request{Notice: r.Notice("a", 1), Attempt: 1})
		var rejected *notify.Rejected
		if err == nil || errors.As(err, &rejected) != final || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: error %v, want it named and final %v", word, err, final)
		}
	}
	w := newWorkspace(t)
	w.refusal = "ratelimited"
	r := receiver(t, w, channelID)
	r.Fail(notifytest.Refused)
	_, err := r.Notifier.Notify(t.Context(), notify.Request{Notice: r.Notice("a", 1), Attempt: 1})
	var busy *notify.Busy
	if !errors.As(err, &busy) || busy.RetryAfter <= 0 {
		t.Errorf("ratelimited: error %v, want *notify.Busy with a pause", err)
	}
	for name, spoil := range map[string]func(*rollout.Notice){
		"no channel":      func(n *rollout.Notice) { n.Notify.Slack = nil },
		"unknown urgency": func(n *rollout.Notice) { n.Urgency = "loud" },
		"unknown channel": func(n *rollout.Notice) { n.Notify.Slack.Channel = "#nowhere" },
	} {
		n := r.Notice("a", 1)
		spoil(&n)
		_, err := r.Notifier.Notify(t.Context(), notify.Request{Notice: n, Attempt: 1})
		var rejected *notify.Rejected
		if !errors.As(err, &rejected) {
			t.Errorf("%s: error %v, want *notify.Rejected", name, err)
		}
	}
}

func TestAlertsWakeTheChannel(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	r := receiver(t, w, channelID)
	thread := notifyOnce(t, r, r.Notice("a", 1), nil, 1)
	alert := r.Notice("a", 2)
	alert.Urgency = rollout.Alert
	notifyOnce(t, r, alert, thread, 1)
	messages, _ := w.snapshot()
	if got := messages[1]; !got.broadcast || got.Thread == "" || !strings.Contains(got.Text, ":rotating_light:") {
		t.Errorf("the alert is %+v, want a reply that the channel sees too", got)
	}
	// A broadcast reply stands in the channel's history; it is no parent message.
	thread = notifyOnce(t, receiver(t, w, channelID), r.Notice("a", 3), nil, 1)
	if !strings.Contains(string(thread), messages[0].TS) {
		t.Errorf("thread %s, want the one of %s", thread, messages[0].TS)
	}
}

// TestSlacktest runs against slack-go's own test server: its chat.postMessage, and its real-time feed as the humans' eyes.
func TestSlacktest(t *testing.T) {
	t.Parallel()
	updates := make(chan string, 10)
	srv := slacktest.NewTestServer(func(c slacktest.Customize) {
		c.Handle("/chat.update", func(w http.ResponseWriter, r *http.Request) {
			if err := r.ParseForm(); err != nil {
				t.Error(err)
			}
			updates <- r.Form.Get("ts") + " " + r.Form.Get("text")
			_, _ = w.Write([]byte(`{"ok":true,"channel":"` + r.Form.Get("channel") + `","ts":"` + r.Form.Get("ts") + `"}`))
		})
	})
	srv.Start()
	t.Cleanup(srv.Stop)
	rtm := srv.GetTestRTMInstance()
	go rtm.ManageConnection()
	t.Cleanup(func() { _ = rtm.Disconnect() })

	w := &workspace{url: srv.GetAPIURL()}
	r := receiver(t, w, "#"+channelName)
	thread := notifyOnce(t, r, r.Notice("a", 1), nil, 1)
	parent := nextMessage(t, rtm)
	if parent.ThreadTimestamp != "" || !strings.Contains(parent.Text, "a v41 → v42: *start* by aviary: reason 1") {
		t.Errorf("the parent message is %+v", parent.Msg)
	}
	notifyOnce(t, r, r.Notice("a", 2), thread, 1)
	reply := nextMessage(t, rtm)
	if reply.ThreadTimestamp != parent.Timestamp || len(reply.Blocks.BlockSet) == 0 || !strings.Contains(reply.Text, "reason 2") {
		t.Errorf("the reply is %+v, want it in thread %s", reply.Msg, parent.Timestamp)
	}
	if got := <-updates; !strings.HasPrefix(got, parent.Timestamp+" ") || !strings.Contains(got, "reason 2") {
		t.Errorf("update %q, want the parent message with the second notice", got)
	}
}

func nextMessage(t *testing.T, rtm *slack.RTM) *slack.MessageEvent {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case e := <-rtm.IncomingEvents:
			if m, ok := e.Data.(*slack.MessageEvent); ok {
				return m
			}
		case <-deadline:
			t.Fatal("no message within 20 s")
		}
	}
}

// blocksText is the message's blocks as JSON, with the markup characters as they are.
func blocksText(t *testing.T, m message) string {
	t.Helper()
	raw, err := json.Marshal(m.Blocks)
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(`\u0026`, "&", `\u003c`, "<", `\u003e`, ">").Replace(string(raw))
}
