package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// tick is the unit of the times in /proc/PID/stat: 10 ms on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// process is a line of /proc/PID/stat.
type process struct {
	parent int
	cpu    time.Duration // of all threads, since its start
	rss    int64         // bytes
}

// parse reads what /proc/PID/stat holds.
func parse(stat []byte) (process, bool) {
	f := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // the name may hold blanks; the state is f[0]
	if len(f) < 22 {
		return process{}, false
	}
	n := func(i int) int64 { v, _ := strconv.ParseInt(string(f[i]), 10, 64); return v }
	return process{parent: int(n(1)), cpu: time.Duration(n(11)+n(12)) * tick, rss: n(21) * int64(os.Getpagesize())}, true
}

// tree is the process and its descendants by id. One that ends meanwhile is left out.
func tree(pid int) map[int]process {
	all := map[int]process{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		id, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if p, ok := parse(raw); ok {
			all[id] = p
		}
	}
	return below(all, pid)
}

// below picks pid and its descendants.
func below(all map[int]process, pid int) map[int]process {
	found := map[int]process{}
	for id, p := range all {
		for up, hops := id, 0; up > 0 && hops < 16; up, hops = all[up].parent, hops+1 {
			if up == pid {
				found[id] = p
				break
			}
		}
	}
	return found
}

// cpu is the CPU time that the process and its living descendants have used since their start.
func cpu(pid int) time.Duration {
	var sum time.Duration
	for _, p := range tree(pid) {
		sum += p.cpu
	}
	return sum
}

// memory is what the process and its descendants hold now, in bytes. Pages that several of them share count once, where the
// kernel tells (Pss); else a page counts for each.
func memory(pid int) int64 {
	var sum int64
	for id, p := range tree(pid) {
		var kib int64
		if _, err := fmt.Sscan(field(fmt.Sprintf("/proc/%d/smaps_rollup", id), "Pss"), &kib); err != nil {
			sum += p.rss
			continue
		}
		sum += kib << 10
	}
	return sum
}
