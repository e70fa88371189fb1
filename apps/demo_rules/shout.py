"""A worker of your own is one file: this one does the second step of the demo."""

from task import Context, Outcome, Worker, complete, run


class Shout(Worker):
    type = "shout"

    def do_task(self, ctx: Context) -> Outcome:
        return complete(self.task.value.upper() + "!")


if __name__ == "__main__":
    run(Shout)
