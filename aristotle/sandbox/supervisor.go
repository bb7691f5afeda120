package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// supervisorMark in the environment makes a process the supervisor.
const supervisorMark = "RECONCILER_SANDBOX_SUPERVISOR"

// request is what the program tells its supervisor, one JSON value each; every one is answered by a reply. The end of the
// stream means: stop, remove everything, exit.
type request struct {
	Verb   verb
	Config *config `json:",omitempty"` // of verbInit
}

type verb string

const (
	verbInit  verb = "init"  // initdb and start; answers with the port
	verbStart verb = "start" // again, on the same data and port
	verbHalt  verb = "halt"  // fast shutdown
	verbCrash verb = "crash" // SIGKILL
)

type config struct {
	Dir      string // the server's folder, writable, with the lock
	Prefix   string // has bin/postgres
	Port     int    // 0: any free one
	Password string
	Settings map[string]string

	Primary    string // of a standby: the folder of the halted server that it copies
	PrimaryURL string
}

type reply struct {
	Port int    `json:",omitempty"`
	Err  string `json:",omitempty"`
}

// Supervise turns this process into the supervisor of a sandbox if it was started as one, and then never returns; in any other
// process it does nothing. It must be the first line of main, and of TestMain, of every program that calls [Start].
func Supervise() {
	if os.Getenv(supervisorMark) == "" {
		return
	}
	runtime.LockOSThread()         // the server's life is tied to the thread that starts it: keep it to this one
	syscall.CloseOnExec(3)         // the lock of the folder is ours, not the server's
	signal.Ignore(syscall.SIGPIPE) // a reply to a program that is dead must not end us before the clean-up
	os.Exit(supervise())
}

func supervise() (status int) {
	var pg postmaster
	defer func() {
		if err := pg.end(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			status = 1
		}
	}()
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var req request
		if err := in.Decode(&req); err != nil {
			return 0 // the program closed the pipe or is dead
		}
		rep := reply{}
		if err := pg.do(req); err != nil {
			rep.Err = err.Error()
		}
		rep.Port = pg.Port
		if err := out.Encode(rep); err != nil {
			return 0
		}
	}
}
