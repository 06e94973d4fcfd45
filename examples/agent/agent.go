// Package agent is a small AI agent to try Aviary on, and the traffic of its users. How well it answers is a setting.
package agent

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Behavior is how well a version answers. Rates are shares of requests in [0,1].
type Behavior struct {
	Version         string
	ErrorRate       float64       // answers 500
	TaskFailureRate float64       // answers, but the task is not done
	SafetyRate      float64       // answers what it must not
	ToolErrorRate   float64       // one of its two tool calls fails
	Latency         time.Duration // mean time to answer; the spread is exponential
}

// Handler serves the agent: POST /chat answers a turn of a conversation as JSON, or as server-sent events for those who
// accept them. It reports how the turn went in response headers, which the gateway reads.
func Handler(b Behavior) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /chat", func(w http.ResponseWriter, r *http.Request) { b.answer(w, r) })
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	return mux
}

func (b Behavior) answer(w http.ResponseWriter, r *http.Request) {
	wait := time.Duration(rand.ExpFloat64() * float64(b.Latency))
	select {
	case <-time.After(wait):
	case <-r.Context().Done():
		return
	}
	b.report(w.Header())
	if rand.Float64() < b.ErrorRate {
		http.Error(w, "the model did not answer", http.StatusInternalServerError)
		return
	}
	words := strings.Fields("Hello, this is " + b.Version + " at your service.")
	if strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		stream(w, words)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"version": b.Version, "answer": strings.Join(words, " ")})
}

func stream(w http.ResponseWriter, words []string) {
	w.Header().Set("Content-Type", "text/event-stream")
	for _, word := range words {
		if _, err := fmt.Fprintf(w, "data: %s\n\n", word); err != nil {
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
	}
}

func (b Behavior) report(h http.Header) {
	task := "completed"
	if rand.Float64() < b.TaskFailureRate {
		task = "failed"
	}
	h.Set("X-Agent-Task", task)
	if rand.Float64() < b.SafetyRate {
		h.Set("X-Agent-Safety-Violation", "harmful_advice")
	}
	tools := "ok=2,error=0"
	if rand.Float64() < b.ToolErrorRate {
		tools = "ok=1,error=1"
	}
	h.Set("X-Agent-Tool-Calls", tools)
	tokens := 80 + rand.IntN(80)
	h.Set("X-Agent-Tokens", strconv.Itoa(tokens))
	h.Set("X-Agent-Cost-USD", strconv.FormatFloat(float64(tokens)*3e-6, 'f', 8, 64))
}
