// The public Go toolkit on NSQ, for the tests: its launcher with a worker that does nothing, its producer, its
// consumer and its codec.
//
//	gotask worker HOST TOPIC            does tasks; a value that begins with "fail" ends with an error
//	gotask send   HOST TYPE VALUE META  sends one task and prints it
//	gotask read   HOST TOPIC N          reads N messages, decodes them and prints what it understood
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/pcelvng/task"
	"github.com/pcelvng/task/bus"
)

type worker struct {
	task.Meta
	value string
}

func (w *worker) DoTask(_ context.Context) (task.Result, string) {
	if strings.HasPrefix(w.value, "fail") {
		return task.Failf("cannot do %s", w.value)
	}
	w.SetMeta("rows", "12")
	return task.Completed("did %s", w.value)
}

func options(host, topic string) *bus.Options {
	opt := task.NewBusOptions("nsq")
	opt.NSQdHosts = []string{host}
	opt.InTopic, opt.InChannel = topic, topic
	return opt
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	mode, host, topic := os.Args[1], os.Args[2], os.Args[3]
	switch mode {
	case "worker":
		newWorker := func(info string) task.Worker { return &worker{task.NewMeta(), info} }
		l, err := task.NewLauncher(newWorker, task.NewLauncherOptions(topic), options(host, topic))
		check(err)
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		fmt.Println("working")
		l.Start(ctx)
	case "send":
		p, err := task.NewProducer(options(host, topic))
		check(err)
		tsk := task.New(topic, os.Args[4])
		tsk.Job, tsk.Meta = "nightly", os.Args[5]
		check(p.Send(topic, tsk.JSONBytes()))
		check(p.Stop())
		fmt.Println(tsk.JSONString())
	case "read":
		c, err := task.NewConsumer(options(host, topic))
		check(err)
		count, err := strconv.Atoi(os.Args[4])
		check(err)
		for i := 0; i < count; i++ {
			msg, _, err := c.Msg()
			check(err)
			tsk, err := task.NewFromBytes(msg)
			check(err)
			fmt.Println(tsk.JSONString())
		}
		check(c.Stop())
	}
}
