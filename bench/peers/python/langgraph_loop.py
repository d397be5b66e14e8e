"""LangGraph's prebuilt agent with its SQLite checkpointer: `langgraph_loop.py <database>`.

Every turn is a new thread, checkpointed after every node, as the library does by default.
"""

import sqlite3
import sys
import uuid

from langchain.agents import create_agent
from langchain_core.messages import ToolMessage
from langchain_core.tools import StructuredTool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.sqlite import SqliteSaver

from harness import DESCRIPTIONS, TOOLS, model_name, serve


def main() -> None:
    saver = SqliteSaver(sqlite3.connect(sys.argv[1], check_same_thread=False))
    agents = {}

    def agent(request: dict):
        name = model_name(request)
        if name not in agents:
            tool = request["tool"]
            tools = [StructuredTool.from_function(TOOLS[tool], name=tool, description=DESCRIPTIONS[tool])]
            model = ChatOpenAI(model=name, use_responses_api=False)
            agents[name] = create_agent(model, tools, system_prompt="You are a benchmark.", checkpointer=saver)
        return agents[name]

    def turn(request: dict) -> int:
        config = {"configurable": {"thread_id": str(uuid.uuid4())}, "recursion_limit": 4 * request["steps"] + 10}
        final = agent(request).invoke({"messages": [{"role": "user", "content": "go"}]}, config)
        results = [m for m in final["messages"] if isinstance(m, ToolMessage)]
        failed = [m.content for m in results if m.status != "success"]
        if failed:
            raise SystemExit(f"a tool call failed: {failed[0]}")
        return len(results)

    serve(turn)


main()
