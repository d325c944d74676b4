*** Settings ***
Library           SignalingLibrary.py
Test Setup        Start Signaling    device_wait_timeout=${5}
Test Teardown     Stop Signaling

*** Test Cases ***
An Offer Comes
    Register Device    cvd-1
    Connect Client     cvd-1
    Client Sends       request-offer
    Device Replies     request-offer    offer    sdp=v=0
    ${offer} =    Client Receives    offer
    Should Be Equal    ${offer}[sdp]    v=0
