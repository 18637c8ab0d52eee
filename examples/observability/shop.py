"""Three tasks, one of which calls another: what the files beside this one trace, measure and watch."""

from chicory import Chicory, RetryPolicy, TaskContext

app = Chicory(broker="sqlite:///shop.db")


@app.task(name="order")
async def order(number: int) -> int:
    charged = await app.send_task("charge", [number])
    return await charged


@app.task(name="charge", retry_policy=RetryPolicy(max_retries=2, retry_delay=0.01))
async def charge(ctx: TaskContext, number: int) -> int:
    if ctx.retries == 0:
        raise ConnectionError("the bank does not answer")
    return number * 100
